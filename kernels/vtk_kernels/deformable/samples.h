// Where the samples of deformable attention lie and what they count: everything that comes before a row of `value` is read.
// Included by loops.h alone.
//
// Samples are kept as arrays, one a quantity, and worked out in loops without branches, so that a vector of them costs what
// one would: which corners are on the map cannot be predicted, and a branch on it would be mistaken every few samples.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "elements.h"
#include "simd.h"

namespace {

using vtk::accumulator_t;

struct Level {
    int64_t height, width, start;
};

struct Sizes {
    int64_t B, S, M, D, Q, L, P;
    std::vector<Level> levels;
};

// What the queries bring. Points: locations (B,Q,M,L,P,2) and weights (B,Q,M,L,P). Attention: reference (B,Q,L,2|4),
// offsets in `locations`, and in `weights` logits for the forward pass, their softmax for the backward pass.
template <class A>
struct Queries {
    const A *locations, *weights, *reference;
    int64_t coordinates;  // 2 or 4; 0 without a reference
};

// exp for x <= 0, in a form that the compiler turns into vector code; within 2 units in the last place, NaN stays NaN.
VTK_INLINE float exponential(float x) {
    const float magic = 12582912.f;  // 1.5 * 2**23: adding it rounds to an integer, in the low bits
    const float clipped = x < -87.f ? -87.f : x;
    const float shifted = clipped * 1.44269504088896341f + magic, n = shifted - magic;
    const float r = (clipped - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    const float scaled = p * vtk::as_float((vtk::as_bits(shifted) << 23) + 0x3f800000u);
    return x < -87.f ? 0.f : scaled;
}
VTK_INLINE double exponential(double x) { return std::exp(x); }

template <class A>
VTK_INLINE void softmax(const A *__restrict logits, A *__restrict weights, int64_t count) {
    A most = logits[0], sum = 0;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < count; ++i) most = logits[i] > most ? logits[i] : most;
    for (int64_t i = 0; i < count; ++i) weights[i] = exponential(logits[i] - most);
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += weights[i];
    const A scale = 1 / sum;
    for (int64_t i = 0; i < count; ++i) weights[i] *= scale;
}

// A location p becomes the pixel p * side - 0.5; a reference r and an offset o become r * side - 0.5 + o * step, which is the
// same: step is 1 for a point, size * side / (2 P) for a box. It is also the pixel's derivative by the location or offset.
template <class A>
struct Axis {
    A origin, step;
};

template <class A>
VTK_INLINE Axis<A> axis(const Sizes &z, const Queries<A> &queries, int64_t bq, int64_t l, int64_t xy) {
    const A side = static_cast<A>(xy ? z.levels[l].height : z.levels[l].width);
    if (!queries.coordinates) return {A(-0.5), side};
    const A *point = queries.reference + (bq * z.L + l) * queries.coordinates;
    const A step = queries.coordinates == 4 ? point[2 + xy] * side * (A(0.5) / static_cast<A>(z.P)) : A(1);
    return {point[xy] * side - A(0.5), step};
}

// `count` samples. The caller fills what is known of their maps, then u, v and weight; `locate` works out the rest. Corners
// are numbered 0 to 3 for 00, 01, 10, 11 (row, column), and have bit k of `corners` if they lie on the map.
template <class A>
class Samples {
  public:
    explicit Samples(int64_t count) : count(count), numbers(11 * count), integers(3 * count), starts(count) {
        A *number = numbers.data();
        for (A **array : {&width, &height, &u, &v, &weight, &a, &c, &share[0], &share[1], &share[2], &share[3]})
            *array = number, number += count;
        row = integers.data(), col = row + count, corners = col + count, start = starts.data();
    }

    const int64_t count;
    A *width, *height;         // of the map
    int64_t *start;            // of the map: its first row
    A *u, *v, *weight;         // pixel coordinates
    A *a, *c;                  // how far u and v lie from corner 00
    A *share[4];               // of the weight, which falls to each corner; 0 off the map
    int *row, *col, *corners;  // of corner 00; which lie on the map: none where the sample is not counted

    // Several loops, since the compiler makes branches of a condition that two expressions of one loop use.
    VTK_INLINE void locate() {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i)  // NaN compares false
            corners[i] = (u[i] > -1 ? 1 : 0) & (u[i] < width[i] ? 1 : 0) & (v[i] > -1 ? 1 : 0) & (v[i] < height[i] ? 1 : 0);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) a[i] = corners[i] ? u[i] : 0;
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) c[i] = corners[i] ? v[i] : 0;
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
            col[i] = static_cast<int>(a[i]) - (a[i] < 0 ? 1 : 0);  // floor of a number above -1
            row[i] = static_cast<int>(c[i]) - (c[i] < 0 ? 1 : 0);
            const A left = static_cast<A>(col[i]), top = static_cast<A>(row[i]);
            const int columns = (left >= 0 ? 1 : 0) | (left + 1 < width[i] ? 2 : 0);
            const int rows = (top >= 0 ? 1 : 0) | (top + 1 < height[i] ? 4 : 0);
            corners[i] *= columns * rows;
            a[i] -= left;
            c[i] -= top;
        }
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
            const A lower = weight[i] * c[i], upper = weight[i] * (1 - c[i]);
            share[0][i] = corners[i] & 1 ? upper * (1 - a[i]) : 0;  // not a product: the weight may be infinite
            share[1][i] = corners[i] & 2 ? upper * a[i] : 0;
            share[2][i] = corners[i] & 4 ? lower * (1 - a[i]) : 0;
            share[3][i] = corners[i] & 8 ? lower * a[i] : 0;
        }
    }

    // places[k * count + i]: where the row of corner k of sample i begins, in an array of rows `stride` apart; `nowhere` for
    // a corner off the map.
    template <class T>
    VTK_INLINE void find(T *rows, int64_t stride, T *nowhere, T **places) const {
        const intptr_t begin = reinterpret_cast<intptr_t>(rows), instead = reinterpret_cast<intptr_t>(nowhere);
        const int64_t bytes = stride * static_cast<int64_t>(sizeof(T));
        for (int k = 0; k < 4; ++k)
#pragma omp simd
            for (int64_t i = 0; i < count; ++i) {
                const int64_t down = static_cast<int>(width[i]), cell = start[i] + (row[i] + k / 2) * down + col[i] + k % 2;
                places[k * count + i] = reinterpret_cast<T *>(corners[i] >> k & 1 ? begin + cell * bytes : instead);
            }
    }

  private:
    std::vector<A> numbers;
    std::vector<int> integers;
    std::vector<int64_t> starts;
};

// Asks for `count` elements to be brought into the cache.
template <class T>
VTK_INLINE void fetch(const T *row, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(row + i);
}

}  // namespace
