#include "tests/fuzz/message_mutator.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "common/utf8.h"

namespace presence::fuzz {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using google::protobuf::TextFormat;

constexpr int kDepthMax = 6;
constexpr size_t kTextBytesMax = 4096;  // over every bound of an id
constexpr uint64_t kEdges[] = {0,      1,       2,          3,          7,          99,         100,         1000,
                               10'000, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF, 1ull << 44, 1ull << 63, ~uint64_t{0}};
const char* const kWords[] = {"",         "alice",    "bob",       "general",
                              "edge-1",   "core-0",   "{\"a\":1}", "\xF0\x9F\x98\x80",
                              "dm_1\t\"", "\xC3\xBC", "presence"};

class Silent final : public google::protobuf::io::ErrorCollector {
  void AddError(int, int, const std::string&) override {}
};

class Mutation {
 public:
  explicit Mutation(unsigned seed) : random_(seed) {}

  void Apply(Message* root) {
    Collect(*root);
    for (size_t count = 1 + Below(3); count > 0; --count) {
      std::vector<Message*> all;
      List(root, 0, &all);
      Change(all[Below(all.size())]);
    }
  }

  size_t Below(size_t bound) { return bound == 0 ? 0 : random_() % bound; }

 private:
  // Numbers and texts that the message holds: what refers to each other must be equal to mean something.
  void Collect(const Message& message) {
    std::vector<const FieldDescriptor*> fields;
    const Reflection& reflection = *message.GetReflection();
    reflection.ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
      for (int i = 0; i < count; ++i) CollectValue(message, field, i);
    }
  }

  void CollectValue(const Message& message, const FieldDescriptor* field, int i) {
    const Reflection& reflection = *message.GetReflection();
    const bool repeated = field->is_repeated();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_UINT64:
        numbers_.push_back(repeated ? reflection.GetRepeatedUInt64(message, field, i)
                                    : reflection.GetUInt64(message, field));
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        texts_.push_back(repeated ? reflection.GetRepeatedString(message, field, i)
                                  : reflection.GetString(message, field));
        break;
      case FieldDescriptor::CPPTYPE_MESSAGE:
        Collect(repeated ? reflection.GetRepeatedMessage(message, field, i) : reflection.GetMessage(message, field));
        break;
      default:
        break;
    }
  }

  void List(Message* message, int depth, std::vector<Message*>* all) {
    all->push_back(message);
    if (depth == kDepthMax) return;
    std::vector<const FieldDescriptor*> fields;
    const Reflection& reflection = *message->GetReflection();
    reflection.ListFields(*message, &fields);
    for (const FieldDescriptor* field : fields) {
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
      if (!field->is_repeated()) {
        List(reflection.MutableMessage(message, field), depth + 1, all);
        continue;
      }
      for (int i = 0; i < reflection.FieldSize(*message, field); ++i) {
        List(reflection.MutableRepeatedMessage(message, field, i), depth + 1, all);
      }
    }
  }

  void Change(Message* message) {
    const auto* descriptor = message->GetDescriptor();
    if (descriptor->field_count() == 0) return;
    const FieldDescriptor* field =
        descriptor->field(static_cast<int>(Below(static_cast<size_t>(descriptor->field_count()))));
    if (field->is_repeated()) {
      ChangeRepeated(message, field);
    } else if (Below(6) == 0) {
      message->GetReflection()->ClearField(message, field);
    } else {
      SetValue(message, field, 0);
    }
  }

  void ChangeRepeated(Message* message, const FieldDescriptor* field) {
    const Reflection& reflection = *message->GetReflection();
    const int size = reflection.FieldSize(*message, field);
    const auto any = [&] { return static_cast<int>(Below(static_cast<size_t>(size))); };
    switch (size == 0 ? 0 : Below(5)) {
      case 0:
      case 1:
        AddValue(message, field);
        if (size > 0) reflection.SwapElements(message, field, any(), size);
        break;
      case 2:
        reflection.SwapElements(message, field, any(), size - 1);
        reflection.RemoveLast(message, field);
        break;
      case 3:
        reflection.SwapElements(message, field, any(), any());
        break;
      default:
        if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {  // the same again
          const int copied = any();
          reflection.AddMessage(message, field)->CopyFrom(reflection.GetRepeatedMessage(*message, field, copied));
        } else {
          SetValue(message, field, any());
        }
    }
  }

  void AddValue(Message* message, const FieldDescriptor* field) {
    const Reflection& reflection = *message->GetReflection();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:
        Fill(reflection.AddMessage(message, field));
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        reflection.AddString(message, field, Text({}, field));
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        reflection.AddUInt64(message, field, Number());
        break;
      case FieldDescriptor::CPPTYPE_UINT32:
        reflection.AddUInt32(message, field, static_cast<uint32_t>(Number()));
        break;
      default:
        break;  // no such lists in our vocabulary
    }
  }

  // A new message is of use only with something in it.
  void Fill(Message* message) {
    for (size_t count = 1 + Below(4); count > 0; --count) Change(message);
  }

  void SetValue(Message* message, const FieldDescriptor* field, int i) {
    const Reflection& reflection = *message->GetReflection();
    const bool repeated = field->is_repeated();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:
        Fill(reflection.MutableMessage(message, field));
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        if (repeated) {
          reflection.SetRepeatedString(message, field, i,
                                       Text(reflection.GetRepeatedString(*message, field, i), field));
        } else {
          reflection.SetString(message, field, Text(reflection.GetString(*message, field), field));
        }
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        repeated ? reflection.SetRepeatedUInt64(message, field, i, Number())
                 : reflection.SetUInt64(message, field, Number());
        break;
      case FieldDescriptor::CPPTYPE_UINT32:
        repeated ? reflection.SetRepeatedUInt32(message, field, i, static_cast<uint32_t>(Number()))
                 : reflection.SetUInt32(message, field, static_cast<uint32_t>(Number()));
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        reflection.SetInt64(message, field, static_cast<int64_t>(Number()));
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        reflection.SetBool(message, field, Below(2) == 0);
        break;
      case FieldDescriptor::CPPTYPE_ENUM: {
        const auto* type = field->enum_type();
        const auto known = static_cast<size_t>(type->value_count());
        reflection.SetEnumValue(
            message, field,
            Below(8) == 0 ? static_cast<int>(Number() & 0xFF) : type->value(static_cast<int>(Below(known)))->number());
        break;
      }
      default:
        break;  // no such fields in our vocabulary
    }
  }

  uint64_t Number() {
    switch (Below(4)) {
      case 0:
        return kEdges[Below(std::size(kEdges))];
      case 1:
        return Below(64);
      case 2:
        return numbers_.empty() ? 1 : numbers_[Below(numbers_.size())] + Below(3) - 1;
      default:
        return numbers_.empty() ? 0 : numbers_[Below(numbers_.size())];
    }
  }

  std::string Text(std::string text, const FieldDescriptor* field) {
    switch (Below(5)) {
      case 0:
        text = kWords[Below(std::size(kWords))];
        break;
      case 1:
        if (!texts_.empty()) text = texts_[Below(texts_.size())];
        break;
      case 2:
        text.assign(2045 + Below(6), 'x');
        break;
      default:
        ChangeBytes(&text);
    }
    if (field->type() == FieldDescriptor::TYPE_STRING) {  // the others are of type bytes
      for (size_t at = Utf8Prefix(text, text.size()).size(); at < text.size();
           at += Utf8Prefix(text.substr(at), text.size()).size()) {
        text[at] = '?';
      }
    }
    return text;
  }

  void ChangeBytes(std::string* text) {
    for (size_t count = 1 + Below(4); count > 0; --count) {
      const size_t at = Below(text->size() + 1);
      switch (Below(3)) {
        case 0:
          text->insert(at, 1, static_cast<char>(Below(256)));
          break;
        case 1:
          text->erase(std::min(at, text->size()), 1 + Below(4));
          break;
        default:
          if (at < text->size()) (*text)[at] = static_cast<char>(Below(256));
      }
    }
    if (text->size() > kTextBytesMax) text->resize(kTextBytesMax);
  }

  std::mt19937 random_;
  std::vector<uint64_t> numbers_;
  std::vector<std::string> texts_;
};

size_t Write(const Message& message, uint8_t* out, size_t size_max) {
  std::string text;
  TextFormat::PrintToString(message, &text);
  if (text.size() > size_max) return 0;
  std::memcpy(out, text.data(), text.size());
  return text.size();
}

}  // namespace

bool ReadMessage(const uint8_t* data, size_t size, Message* message) {
  google::protobuf::io::ArrayInputStream in(data, static_cast<int>(size));
  TextFormat::Parser parser;
  Silent silent;
  parser.RecordErrorsTo(&silent);
  parser.SetRecursionLimit(32);
  return parser.Parse(&in, message);
}

size_t Mutate(uint8_t* data, size_t size, size_t size_max, unsigned seed, Message* message) {
  if (!ReadMessage(data, size, message)) message->Clear();
  Mutation(seed).Apply(message);
  const size_t written = Write(*message, data, size_max);
  return written > 0 ? written : size;
}

size_t CrossOver(const uint8_t* data1, size_t size1, const uint8_t* data2, size_t size2, uint8_t* out, size_t size_max,
                 unsigned seed, Message* message, Message* other) {
  if (!ReadMessage(data1, size1, message)) message->Clear();
  if (!ReadMessage(data2, size2, other)) other->Clear();
  message->MergeFrom(*other);  // one story after the other
  if (seed % 2 == 0) Mutation(seed).Apply(message);
  return Write(*message, out, size_max);
}

}  // namespace presence::fuzz
