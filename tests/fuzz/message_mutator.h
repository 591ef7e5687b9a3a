// Changes protobuf messages by their own description, so that a fuzzer spends its time behind the parser: fields are set, cleared, added,
// doubled and moved; numbers prefer edges and what stands elsewhere in the message; strings stay UTF-8.
//
// One line in a target makes its inputs messages in the text format, which people can read and write:
//   PRESENCE_MESSAGE_FUZZER(presence::fuzz::HubStory, Run)
#pragma once

#include <google/protobuf/message.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace presence::fuzz {

// False: not a message in the text format.
bool ReadMessage(const uint8_t* data, size_t size, google::protobuf::Message* message);

// What libFuzzer's hooks of the same names ask for; `message` and `other` are scratch space of the right type.
size_t Mutate(uint8_t* data, size_t size, size_t size_max, unsigned seed, google::protobuf::Message* message);
size_t CrossOver(const uint8_t* data1, size_t size1, const uint8_t* data2, size_t size2, uint8_t* out, size_t size_max,
                 unsigned seed, google::protobuf::Message* message, google::protobuf::Message* other);

// As it would come over a wire. False when its own parser refuses it: a peer would see the end of the stream.
template <typename Message>
bool Transmit(const Message& sent, Message* received) {
  return received->ParseFromString(sent.SerializeAsString());
}

}  // namespace presence::fuzz

#define PRESENCE_MESSAGE_FUZZER(Type, Run)                                                                            \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {                                           \
    Type message;                                                                                                     \
    if (presence::fuzz::ReadMessage(data, size, &message)) Run(message);                                              \
    return 0;                                                                                                         \
  }                                                                                                                   \
  extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t size_max, unsigned seed) {             \
    Type message;                                                                                                     \
    return presence::fuzz::Mutate(data, size, size_max, seed, &message);                                              \
  }                                                                                                                   \
  extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* data1, size_t size1, const uint8_t* data2, size_t size2, \
                                              uint8_t* out, size_t size_max, unsigned seed) {                         \
    Type message, other;                                                                                              \
    return presence::fuzz::CrossOver(data1, size1, data2, size2, out, size_max, seed, &message, &other);              \
  }
