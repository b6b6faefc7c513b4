// Writes that pass by the caches, for a result too large to stay in one until it is read: a line that will be written whole
// need not be fetched first, which is a third of the traffic of a copy.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

#if defined(__SSE2__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define VTK_HAS_STREAM
#include <emmintrin.h>
#endif

namespace vtk {

constexpr int64_t kStreamedBytes = 8 << 20;

// Whether `stream` may write rows of `row_bytes` of a result that begins at `result`.
inline bool streams(const void *result, int64_t bytes, int64_t row_bytes) {
#ifdef VTK_HAS_STREAM
    return bytes >= kStreamedBytes && row_bytes % 16 == 0 && reinterpret_cast<std::uintptr_t>(result) % 16 == 0;
#else
    (void)result;
    (void)bytes;
    (void)row_bytes;
    return false;
#endif
}

// Copies `bytes`, a multiple of 16, to a place on a border of 16. A thread that streamed calls `end_stream` at its end.
VTK_INLINE void stream(char *to, const char *from, int64_t bytes) {
#ifdef VTK_HAS_STREAM
    for (int64_t i = 0; i < bytes; i += 16)
        _mm_stream_si128(reinterpret_cast<__m128i *>(to + i), _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + i)));
#else
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
#endif
}

VTK_INLINE void end_stream() {
#ifdef VTK_HAS_STREAM
    _mm_sfence();
#endif
}

}  // namespace vtk
