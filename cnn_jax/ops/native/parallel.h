// Work that the threads of XLA's pool share.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

namespace cnn_jax {

// Call `body(0)` to `body(count - 1)`, each once. The calling thread takes part, and waits only for calls that have
// begun, never for a thread to become free: all threads of the pool may be here. Throws std::bad_alloc where one does.
template <typename Pool, typename Body>
void in_parallel(Pool& pool, int64_t count, const Body& body) {
  const int64_t threads = std::min<int64_t>(pool.num_threads(), count);
  if (threads <= 1) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  struct Shared {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable all_done;
  };
  auto shared = std::make_shared<Shared>();
  // `body` is there as long as one of its calls is not done; a thread that comes later finds none left.
  auto work = [shared, count, &body] {
    int64_t done = 0;
    for (int64_t i; (i = shared->next.fetch_add(1)) < count; ++done) {
      try {
        body(i);
      } catch (const std::bad_alloc&) {
        shared->failed = true;
      }
    }
    if (done == 0) return;
    std::lock_guard<std::mutex> lock(shared->mutex);
    shared->done += done;
    if (shared->done == count) shared->all_done.notify_one();
  };
  for (int64_t i = 1; i < threads; ++i) {
    auto copy = work;
    pool.Schedule(std::move(copy));
  }
  work();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->all_done.wait(lock, [&] { return shared->done == count; });
  if (shared->failed) throw std::bad_alloc();
}

}  // namespace cnn_jax
