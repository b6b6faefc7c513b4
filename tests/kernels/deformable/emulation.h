// Enough of CUDA's language to run cuda.cu on a CPU: one block at a time, each of its threads a std::thread. For tests.
#include <barrier>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline

struct Index {
    int x;
};
thread_local Index threadIdx, blockIdx, blockDim;
alignas(16) unsigned char memory[1 << 20];
std::unique_ptr<std::barrier<>> everyone;
std::vector<std::unique_ptr<std::barrier<>>> groups;
double exchanged[1024];
std::mutex adding;

inline void __syncthreads() { everyone->arrive_and_wait(); }

template <class T>
T __shfl_xor_sync(unsigned lanes, T x, int step, int width) {
    const int group = threadIdx.x / width;
    if (!(lanes >> threadIdx.x % 32 & 1)) std::terminate();  // a thread that is not of its own mask
    exchanged[threadIdx.x] = x;
    groups[group]->arrive_and_wait();
    const T other = static_cast<T>(exchanged[threadIdx.x ^ step]);
    groups[group]->arrive_and_wait();
    return other;
}

template <class T, class U>
void atomicAdd(T *place, U change) {
    std::lock_guard<std::mutex> lock(adding);
    *place += change;
}

inline float __uint_as_float(unsigned x) {
    float y;
    std::memcpy(&y, &x, 4);
    return y;
}
inline unsigned __float_as_uint(float x) {
    unsigned y;
    std::memcpy(&y, &x, 4);
    return y;
}

template <class Kernel, class... Arguments>
void launch(int grid, int block, int lanes, Kernel kernel, Arguments... arguments) {
    for (int index = 0; index < grid; ++index) {
        everyone = std::make_unique<std::barrier<>>(block);
        groups.clear();
        for (int group = 0; group < block / lanes; ++group) groups.push_back(std::make_unique<std::barrier<>>(lanes));
        std::vector<std::thread> threads;
        for (int thread = 0; thread < block; ++thread)
            threads.emplace_back([=] {
                threadIdx.x = thread, blockIdx.x = index, blockDim.x = block;
                kernel(arguments...);
            });
        for (auto &thread : threads) thread.join();
    }
}
