// Time-outs of one constant duration: what was added first is due first, so a list in that order is all it takes.
// Adding, removing and looking are O(1) and allocate nothing: the node is a base of whatever has the time-out.
//
// Lives on one thread. REQUIRES: times never go back. A node is in one list at most, and leaves it before it dies.
#pragma once

#include <utility>

#include "common/time.h"

namespace presence::edge {

class DeadlineNode {
 public:
  DeadlineNode() = default;
  DeadlineNode(const DeadlineNode&) = delete;
  DeadlineNode& operator=(const DeadlineNode&) = delete;

 private:
  friend class DeadlineList;
  DeadlineNode* previous_ = nullptr;
  DeadlineNode* next_ = nullptr;
  SteadyTime due_;
};

class DeadlineList {
 public:
  explicit DeadlineList(Duration duration) : duration_(duration) {
    ends_.previous_ = ends_.next_ = &ends_;
    ends_.due_ = SteadyTime::max();
  }

  // Removes it from the list in which it is, this or another.
  void Add(DeadlineNode& node, SteadyTime now) {
    Remove(node);
    node.due_ = now + duration_;
    node.previous_ = std::exchange(ends_.previous_, &node);
    node.next_ = &ends_;
    node.previous_->next_ = &node;
  }

  // From whatever list it is in.
  static void Remove(DeadlineNode& node) {
    if (node.next_ == nullptr) return;
    node.previous_->next_ = node.next_;
    node.next_->previous_ = node.previous_;
    node.previous_ = node.next_ = nullptr;
  }

  // The one that is due first. REQUIRES: there is one.
  DeadlineNode* First() const { return ends_.next_; }
  // nullptr: none is due.
  DeadlineNode* FirstDue(SteadyTime now) const { return ends_.next_->due_ <= now ? ends_.next_ : nullptr; }
  // SteadyTime::max(): the list is empty.
  SteadyTime NextDue() const { return ends_.next_->due_; }

 private:
  const Duration duration_;
  DeadlineNode ends_;  // the list is a ring through this node, whose own deadline never comes
};

}  // namespace presence::edge
