// Lines that a person types, while the program also prints: libedit on a terminal, plain reading otherwise.
//
// For one thread. Whoever reads a line says how to wait for the keyboard, and may print from there.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace presence::edge::cli {

class LineEditor {
 public:
  // Returns when fd() can be read (true), or when there will be no more lines (false). May call Print.
  using Wait = std::function<bool()>;

  // `prompt` is constant text.
  explicit LineEditor(const char* prompt);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  int fd() const { return 0; }
  // Both standard input and output are terminals: there is a prompt, and a history.
  bool interactive() const { return terminal_ != nullptr; }

  // The next line, without its end; nothing at the end of the input or when `wait` says so. While it waits the terminal is in
  // libedit's hands, and given back before it returns.
  std::optional<std::string> ReadLine(const Wait& wait);

  // Prints whole lines, above the prompt and what is being typed when there is such.
  void Print(std::string_view lines);

 private:
  class Terminal;

  std::optional<std::string> ReadPlainLine(const Wait& wait);

  std::unique_ptr<Terminal> terminal_;
  std::string unread_;  // of plain reading: behind the last line
  bool at_end_ = false;
};

}  // namespace presence::edge::cli
