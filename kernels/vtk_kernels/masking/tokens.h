// Rows of the kept tokens, and their gradients. Included by cpu.cpp alone.
#pragma once

#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "elements.h"
#include "sets.h"

namespace {

using vtk::bfloat16;
using vtk::float16;

struct Tokens {
    const void *from, *pos, *prefix;
    void *to, *sums;
    const int64_t *keep;
    const int32_t *places;
    int64_t batch, tokens, kept, before, prefix_stride, channels;
};

template <class From, class To>
VTK_INLINE void convert(To *to, const From *from, int64_t count) {
    if constexpr (std::is_same_v<From, To>)
        std::memcpy(to, from, static_cast<size_t>(count) * sizeof(To));
    else
        for (int64_t i = 0; i < count; ++i) vtk::store(to[i], vtk::load(from[i]));
}

// Rows [begin, end) of the (B * (P + K)) rows that `keep_tokens` writes.
template <class X, class Out>
VTK_INLINE void gather_rows(const Tokens &job, int64_t begin, int64_t end) {
    const int64_t channels = job.channels, length = job.before + job.kept;
    for (int64_t row = begin; row < end; ++row) {
        const int64_t sample = row / length, position = row % length - job.before;
        Out *to = static_cast<Out *>(job.to) + row * channels;
        if (position < 0) {
            const Out *prefix = static_cast<const Out *>(job.prefix) + sample * job.prefix_stride;
            std::memcpy(to, prefix + (position + job.before) * channels, static_cast<size_t>(channels) * sizeof(Out));
            continue;
        }
        const int64_t token = job.keep[sample * job.kept + position];
        const X *from = static_cast<const X *>(job.from) + (sample * job.tokens + token) * channels;
        if (!job.pos) {
            convert(to, from, channels);
            continue;
        }
        const Out *pos = static_cast<const Out *>(job.pos) + token * channels;
        for (int64_t i = 0; i < channels; ++i) vtk::store(to[i], vtk::load(from[i]) + vtk::load(pos[i]));
    }
}

constexpr int64_t kSums = 8192;  // sums in flight: 32 KB, within the first two caches

// Tokens [begin, end): their gradient in every sample, and its sum over the samples, in the order of the samples whatever
// the number of threads. A thread owns its tokens, so nothing is written twice.
template <class Grad, class X>
VTK_INLINE void scatter_rows(const Tokens &job, int64_t begin, int64_t end) {
    using Sum = vtk::accumulator_t<Grad>;
    const int64_t channels = job.channels, length = job.before + job.kept;
    const int64_t block = std::max<int64_t>(1, kSums / std::max<int64_t>(1, channels));
    for (int64_t first = begin; first < end; first += block) {
        const int64_t last = std::min(end, first + block);
        Sum *sums = static_cast<Sum *>(job.sums);
        if (sums) std::fill(sums + first * channels, sums + last * channels, Sum{0});
        for (int64_t sample = 0; sample < job.batch; ++sample)
            for (int64_t token = first; token < last; ++token) {
                const int64_t place = job.places[sample * job.tokens + token];
                X *to = job.to ? static_cast<X *>(job.to) + (sample * job.tokens + token) * channels : nullptr;
                if (place < 0) {
                    if (to) std::memset(static_cast<void *>(to), 0, static_cast<size_t>(channels) * sizeof(X));
                    continue;
                }
                const Grad *from = static_cast<const Grad *>(job.from) + (sample * length + job.before + place) * channels;
                if (to) convert(to, from, channels);
                if (!sums) continue;
                Sum *sum = sums + token * channels;
                for (int64_t i = 0; i < channels; ++i) sum[i] += vtk::load(from[i]);
            }
    }
}

// The pairs (x, out) of keep_tokens; the gradients run the other way.
#define VTK_PAIRS(PAIR)       \
    PAIR(double, double)      \
    PAIR(float, float)        \
    PAIR(float16, float16)    \
    PAIR(bfloat16, bfloat16)  \
    PAIR(float16, float)      \
    PAIR(bfloat16, float)
template <class X, class Out>
struct Pair {};
#define VTK_PAIR(X, Out)                                                                       \
    VTK_SIMD void gather(Pair<X, Out>, const Tokens &job, int64_t begin, int64_t end) {        \
        gather_rows<X, Out>(job, begin, end);                                                  \
    }                                                                                          \
    VTK_SIMD void scatter(Pair<X, Out>, const Tokens &job, int64_t begin, int64_t end) {       \
        scatter_rows<Out, X>(job, begin, end);                                                 \
    }
VTK_PAIRS(VTK_PAIR)

// Calls body(Pair<X, Out>{}) with the types that the two arrays hold.
template <class Body>
void with_pair(const Array &x, const Array &out, const Body &body) {
    vtk::with_element(x, "x", [&](auto element) {
        using X = decltype(element);
        if (x.dtype() == out.dtype())
            body(Pair<X, X>{});
        else if constexpr (std::is_same_v<X, float16> || std::is_same_v<X, bfloat16>)
            body(Pair<X, float>{});
        else
            throw std::invalid_argument("x: expected the type of the result, or float16 or bfloat16");
    });
}

void keep_tokens(const Array &x, const Array &keep, const std::optional<Array> &pos, const std::optional<Array> &prefix, const Array &out, int threads) {
    nb::gil_scoped_release release;
    Tokens job{};
    job.batch = static_cast<int64_t>(x.shape(0));
    job.tokens = static_cast<int64_t>(x.shape(1));
    job.channels = static_cast<int64_t>(x.shape(2));
    job.kept = static_cast<int64_t>(keep.shape(1));
    job.before = prefix ? static_cast<int64_t>(prefix->shape(1)) : 0;
    job.prefix_stride = prefix && prefix->shape(0) > 1 ? job.before * job.channels : 0;
    job.from = x.data();
    job.pos = pos ? pos->data() : nullptr;
    job.prefix = prefix ? prefix->data() : nullptr;
    job.to = fresh(out);
    job.keep = vtk::data<int64_t>(keep);
    check_keep(job.keep, job.batch, job.kept, job.tokens);
    const int64_t rows = job.batch * (job.before + job.kept);
    with_pair(x, out, [&](auto pair) {
        share_out(rows, job.channels * 8, threads, [&](int64_t begin, int64_t end) { gather(pair, job, begin, end); });
    });
}

void keep_tokens_backward(const Array &grad, const Array &keep, const std::optional<Array> &grad_x, const std::optional<Array> &grad_pos, int64_t tokens, int threads) {
    nb::gil_scoped_release release;
    Tokens job{};
    job.batch = static_cast<int64_t>(grad.shape(0));
    job.tokens = tokens;
    job.channels = static_cast<int64_t>(grad.shape(2));
    job.kept = static_cast<int64_t>(keep.shape(1));
    job.before = static_cast<int64_t>(grad.shape(1)) - job.kept;
    job.from = grad.data();
    job.to = grad_x ? fresh(*grad_x) : nullptr;
    job.sums = grad_pos ? vtk::data<char>(*grad_pos) : nullptr;
    const std::vector<int32_t> places = places_of(vtk::data<int64_t>(keep), job.batch, job.kept, tokens);
    job.places = places.data();
    with_pair(grad_x ? *grad_x : grad, grad, [&](auto pair) {
        share_out(tokens, job.batch * job.channels * 8, threads, [&](int64_t begin, int64_t end) { scatter(pair, job, begin, end); });
    });
}

}  // namespace
