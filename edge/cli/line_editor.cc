#include "edge/cli/line_editor.h"

#include <histedit.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cwchar>

namespace presence::edge::cli {

// libedit owns the loop while a line is edited and asks us for each character. That is where we wait for everything else, too.
class LineEditor::Terminal {
 public:
  explicit Terminal(const char* prompt)
      : prompt_(prompt), edit_(el_init("presence-cli", stdin, stdout, stderr)), history_(history_init()) {
    HistEvent event;
    history(history_, &event, H_SETSIZE, 200);
    history(history_, &event, H_SETUNIQUE, 1);
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(edit_, EL_PROMPT, &Terminal::Prompt);
    el_set(edit_, EL_EDITOR, "emacs");
    el_set(edit_, EL_HIST, history, history_);
    el_set(edit_, EL_GETCFN, &Terminal::GetCharacter);
    el_set(edit_, EL_SIGNAL, 0);  // the session takes signals
  }
  ~Terminal() {
    el_end(edit_);
    history_end(history_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  std::optional<std::string> ReadLine(const Wait& wait) {
    wait_ = &wait;
    editing_ = true;
    int size = 0;
    const char* text = el_gets(edit_, &size);
    editing_ = false;
    wait_ = nullptr;
    if (text == nullptr || size <= 0 || stopped_) {
      std::fputc('\n', stdout);  // leaves the prompt's line
      return std::nullopt;
    }
    std::string line(text, static_cast<size_t>(size));
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
    HistEvent event;
    if (!line.empty()) history(history_, &event, H_ENTER, line.c_str());
    return line;
  }

  void Print(std::string_view lines) {
    if (editing_) std::fputs("\r\x1b[K", stdout);
    std::fwrite(lines.data(), 1, lines.size(), stdout);
    std::fputc('\n', stdout);
    if (editing_) el_set(edit_, EL_REFRESH);
    std::fflush(stdout);
  }

 private:
  static Terminal& Of(EditLine* edit) {
    void* terminal = nullptr;
    el_get(edit, EL_CLIENTDATA, &terminal);
    return *static_cast<Terminal*>(terminal);
  }

  static char* Prompt(EditLine* edit) { return const_cast<char*>(Of(edit).prompt_); }

  // One character of the locale, which may be several bytes. 1: there is one; 0: the end.
  static int GetCharacter(EditLine* edit, wchar_t* character) {
    Terminal& terminal = Of(edit);
    std::mbstate_t state{};
    while ((*terminal.wait_)()) {
      char byte = 0;
      const ssize_t size = read(STDIN_FILENO, &byte, 1);
      if (size < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (size <= 0) break;
      const size_t used = std::mbrtowc(character, &byte, 1, &state);
      if (used == 1 || used == 0) return 1;
      if (used == static_cast<size_t>(-1)) state = std::mbstate_t{};  // no character: left out
    }
    terminal.stopped_ = true;
    return 0;
  }

  const char* const prompt_;
  EditLine* const edit_;
  History* const history_;
  const Wait* wait_ = nullptr;
  bool editing_ = false;
  bool stopped_ = false;
};

LineEditor::LineEditor(const char* prompt) {
  if (isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1) terminal_ = std::make_unique<Terminal>(prompt);
}

LineEditor::~LineEditor() = default;

std::optional<std::string> LineEditor::ReadLine(const Wait& wait) {
  return terminal_ != nullptr ? terminal_->ReadLine(wait) : ReadPlainLine(wait);
}

std::optional<std::string> LineEditor::ReadPlainLine(const Wait& wait) {
  while (true) {
    const size_t end = unread_.find('\n');
    if (end != std::string::npos || (at_end_ && !unread_.empty())) {
      std::string line = unread_.substr(0, end);
      unread_.erase(0, end == std::string::npos ? end : end + 1);
      return line;
    }
    if (at_end_ || !wait()) return std::nullopt;
    char buffer[4096];
    const ssize_t size = read(STDIN_FILENO, buffer, sizeof buffer);
    if (size < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (size <= 0) at_end_ = true;
    if (size > 0) unread_.append(buffer, static_cast<size_t>(size));
  }
}

void LineEditor::Print(std::string_view lines) {
  if (terminal_ != nullptr) return terminal_->Print(lines);
  std::fwrite(lines.data(), 1, lines.size(), stdout);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

}  // namespace presence::edge::cli
