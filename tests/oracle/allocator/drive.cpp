// Drives torch's own allocator: reads requests, prints what it does and what it counts.
//
// Input, a line each: `a INDEX SIZE STREAM` (allocate), `f INDEX` (free), `e` (empty the cache).
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/PeerToPeerAccess.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

namespace allocator = c10::cuda::CUDACachingAllocator;
using Entry = c10::CachingDeviceAllocator::TraceEntry;

int main() {
  static const char* names[] = {"alloc", "free_requested", "free_completed", "segment_alloc", "segment_free",
                                "segment_map", "segment_unmap", "snapshot", "oom"};
  c10::cuda::detail::init_p2p_access_cache(1);
  allocator::init(1);
  long event = 0;
  allocator::get()->attachAllocatorTraceTracker([&](const Entry& entry) {
    std::printf("%ld %s %zu %zu %zu\n", event, names[entry.action_], entry.addr_, entry.size_,
                reinterpret_cast<std::size_t>(entry.stream_));
  });
  std::vector<void*> at;
  std::string word;
  for (; std::cin >> word; ++event) {
    std::size_t index = 0, size = 0, stream = 0;
    if (word == "a") {
      std::cin >> index >> size >> stream;
      if (at.size() <= index) at.resize(index + 1);
      try {
        at[index] = allocator::raw_alloc_with_stream(size, reinterpret_cast<cudaStream_t>(stream));
      } catch (const c10::Error& error) {
        std::printf("message %s\n", error.what_without_backtrace());
        break;
      }
    } else if (word == "f") {
      std::cin >> index;
      allocator::raw_delete(at[index]);
    } else {
      allocator::emptyCache();
    }
  }
  auto stats = allocator::getDeviceStats(0);
  auto print = [](const char* name, const c10::CachingAllocator::StatArray& stat) {
    std::printf("stat %s %ld %ld\n", name, long(stat[0].current), long(stat[0].peak));
  };
  print("allocated", stats.allocated_bytes);
  print("reserved", stats.reserved_bytes);
  print("active", stats.active_bytes);
  print("requested", stats.requested_bytes);
  print("inactive_split", stats.inactive_split_bytes);
  print("segments", stats.segment);
  std::printf("stat retries %ld 0\n", long(stats.num_alloc_retries));
  std::printf("stat rejections %ld 0\n", long(stats.num_oom_rejections));
  for (const auto& segment : allocator::snapshot({0, 0}, false).segments) {
    std::printf("segment %zu %zu %zu %d %d", segment.address, segment.total_size,
                reinterpret_cast<std::size_t>(segment.stream), int(!segment.is_large), int(segment.is_expandable));
    for (const auto& block : segment.blocks)
      std::printf(" %zu:%zu:%d", block.size, block.requested_size, int(block.allocated));
    std::printf("\n");
  }
  std::fflush(stdout);
  std::_Exit(0);
}
