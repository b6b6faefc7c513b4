// Threads that neither hang after fork nor race.
//
// libgomp's threads do not survive fork: a parallel region in a forked child waits for ever for the threads of its parent.
// So a child of fork (a DataLoader worker) runs every kernel on the calling thread. Loops are split into ranges of whole
// items, each item is written by one thread, and results do not depend on the number of threads.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <cstdint>

#include "simd.h"

#if defined(__SANITIZE_THREAD__)  // ThreadSanitizer does not know libgomp's barriers; it knows std::thread
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

namespace vtk {

inline bool &forked_flag() {
    static bool flag = false;
    return flag;
}

inline bool forked() { return forked_flag(); }

// Called once, when the module is loaded.
inline void watch_forks() {
    pthread_atfork(nullptr, nullptr, [] { forked_flag() = true; });
}

// Calls work(begin, end) so that [0, count) is covered once, on at most `threads` threads (torch.get_num_threads()), each
// with at least `grain` items. `chunks` ranges a thread (default 1) even out items of unequal cost. `work` must not throw.
template <class Work>
void parallel_for(int64_t count, int threads, int64_t grain, const Work &work, int chunks = 1) {
    if (count <= 0) return;
    const int64_t most = std::max<int64_t>(1, count / std::max<int64_t>(1, grain));
    const int team = forked() ? 1 : static_cast<int>(std::min<int64_t>(std::max(1, threads), most));
    if (team == 1) {
        work(int64_t{0}, count);
        return;
    }
    const int64_t ranges = std::min<int64_t>(most, static_cast<int64_t>(team) * chunks);
#if defined(__SANITIZE_THREAD__)
    std::vector<std::thread> workers;
    for (int worker = 0; worker < team; ++worker)
        workers.emplace_back([&, worker] {
            for (int64_t range = worker; range < ranges; range += team) work(count * range / ranges, count * (range + 1) / ranges);
        });
    for (auto &worker : workers) worker.join();
#else
#pragma omp parallel for num_threads(team) schedule(dynamic, 1)
    for (int64_t range = 0; range < ranges; ++range) work(count * range / ranges, count * (range + 1) / ranges);
#endif
}

}  // namespace vtk
