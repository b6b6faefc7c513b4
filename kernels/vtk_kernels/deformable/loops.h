// The loops of deformable attention: forward and backward, over a range of items. Included by cpu.cpp alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "samples.h"
#include "stream.h"
#include "vectors.h"

namespace {

using vtk::load;
using vtk::store;

template <class T>
struct Forward {
    const Sizes &sizes;
    const Queries<accumulator_t<T>> &queries;
    const T *value;
    T *out;
};

// The L * P samples of one (b, q, m), and the rows under their corners.
template <class T, class A = accumulator_t<T>>
struct Plan {
    explicit Plan(const Sizes &z) : samples(z.L * z.P), rows(4 * z.L * z.P) {
        for (int64_t i = 0; i < z.L * z.P; ++i) {
            const Level &map = z.levels[i / z.P];
            samples.width[i] = static_cast<A>(map.width);
            samples.height[i] = static_cast<A>(map.height);
            samples.start[i] = map.start;
        }
    }
    Samples<A> samples;
    std::vector<const T *> rows;  // row k * L * P + i: corner k of sample i
};

template <class T, class A = accumulator_t<T>>
VTK_INLINE void plan(const Forward<T> &job, int64_t item, const T *nowhere, Plan<T> &next) {
    const Sizes &z = job.sizes;
    const Queries<A> &queries = job.queries;
    const int64_t points = z.L * z.P, m = item % z.M, bq = item / z.M, stride = z.M * z.D;
    const A *given = queries.weights + item * points, *places = queries.locations + item * points * 2;
    Samples<A> &samples = next.samples;
    if (queries.coordinates)
        softmax(given, samples.weight, points);
    else
        std::copy_n(given, points, samples.weight);
    for (int64_t l = 0, i = 0; l < z.L; ++l) {
        const Axis<A> x = axis(z, queries, bq, l, 0), y = axis(z, queries, bq, l, 1);
        for (int64_t p = 0; p < z.P; ++p, ++i) {
            samples.u[i] = x.origin + places[2 * i] * x.step;
            samples.v[i] = y.origin + places[2 * i + 1] * y.step;
        }
    }
    samples.locate();
    samples.find(job.value + bq / z.Q * z.S * stride + m * z.D, stride, nowhere, next.rows.data());
}

// out[d] = sum over samples and corners of share * row[d] for N vectors of channels at a time, which stay in registers. The
// rows of the next plan are fetched meanwhile, a few at a time: the processor waits when it is asked for many at once.
template <int N, class T>
VTK_INLINE int64_t add_up(const Plan<T> &now, const Plan<T> &next, T *out, int64_t from, int64_t D) {
    using A = accumulator_t<T>;
    using V = vtk::Vector<A>;
    constexpr int lanes = vtk::lanes<A>;
    const int64_t count = now.samples.count;
    const T *const *rows = now.rows.data(), *const *coming = next.rows.data();
    for (; from + N * lanes <= D; from += N * lanes) {
        V sum[N] = {};
        for (int64_t i = 0; i < count; ++i) {
            for (int k = 0; k < 4; ++k) fetch(coming[k * count + i] + from, N * lanes);
            for (int n = 0; n < N; ++n) {
                V part[4];
                for (int k = 0; k < 4; ++k)
                    part[k] = now.samples.share[k][i] * vtk::load_vector(rows[k * count + i] + from + n * lanes);
                sum[n] += (part[0] + part[1]) + (part[2] + part[3]);  // the register is waited for once, not four times
            }
        }
        for (int n = 0; n < N; ++n)
            for (int lane = 0; lane < lanes; ++lane) store(out[from + n * lanes + lane], sum[n][lane]);
    }
    return from;
}

template <class T>
VTK_INLINE void add_up_rest(const Plan<T> &now, T *out, int64_t from, int64_t D) {
    const int64_t count = now.samples.count;
    for (; from < D; ++from) {
        accumulator_t<T> sum = 0;
        for (int64_t i = 0; i < count; ++i)
            for (int k = 0; k < 4; ++k) sum += now.samples.share[k][i] * load(now.rows[k * count + i][from]);
        store(out[from], sum);
    }
}

// Items are (b, q, m), m fastest: the heads of a query look at neighbouring cells. The next one is planned, and its rows are
// fetched, before this one is summed.
template <class T>
VTK_INLINE void forward_range(const Forward<T> &job, int64_t begin, int64_t end) {
    const int64_t D = job.sizes.D;
    const std::vector<T> zeros(D);
    Plan<T> plans[2] = {Plan<T>(job.sizes), Plan<T>(job.sizes)};
    plan(job, begin, zeros.data(), plans[begin % 2]);
    for (int64_t item = begin; item < end; ++item) {
        const Plan<T> &now = plans[item % 2];
        Plan<T> &next = plans[(item + 1) % 2];
        plan(job, std::min(item + 1, end - 1), zeros.data(), next);
        T *out = job.out + item * D;
        int64_t from = add_up<4>(now, next, out, 0, D);
        from = add_up<1>(now, next, out, from, D);
        add_up_rest(now, out, from, D);
    }
}

template <class A>
struct QueryGrads {
    A *locations, *weights, *reference;
};

template <class T>
struct Backward {
    using A = accumulator_t<T>;
    const Sizes &sizes;
    const Queries<A> &queries;  // with weights, never logits
    const T *grad, *value;
    T *grad_value;
    const QueryGrads<A> &grads;  // weights: d out / d weight, before the softmax
    bool streams;  // whether grad_value is written past the caches
};

constexpr int64_t kBlock = 16;  // samples: their rows and sums, 16 KB of each for 32 channels, fit the first-level cache

// One (b, m, l): its map, which begins at `offset`, and where its gradient is summed.
template <class T>
struct Item {
    int64_t b, m, l, offset, cells;
    const T *value, *zeros;
    accumulator_t<T> *sums;
};

// Samples of a few queries, their rows of the map and of its gradient, and what becomes of them.
template <class T, class A = accumulator_t<T>>
struct Block {
    explicit Block(int64_t count) : samples(count), rows(4 * count), sums(4 * count), dots(4 * count), changes(3 * count) {}
    Samples<A> samples;
    std::vector<const T *> rows;
    std::vector<A *> sums;
    std::vector<A> dots, changes;  // changes: the gradients of weight, u and v

    VTK_INLINE void fetch_corners(int64_t i, int64_t D) const {
        for (int k = 0; k < 4; ++k) {
            fetch(rows[k * samples.count + i], D);
            fetch(sums[k * samples.count + i], D);
        }
    }
};

// Of each corner of sample i: the product of its row with `grad`; and its share of `grad` is added to its gradient.
template <int N, class T, class A = accumulator_t<T>>
VTK_INLINE void touch_corners(Block<T> &block, int64_t i, const A *grad, int64_t D) {
    using V = vtk::Vector<A>;
    constexpr int lanes = vtk::lanes<A>;
    const int64_t vectors = N ? N : D / lanes, count = block.samples.count;
    const T *rows[4];
    A *sums[4], share[4], dots[4];
    for (int k = 0; k < 4; ++k) {
        rows[k] = block.rows[k * count + i];
        sums[k] = block.sums[k * count + i];
        share[k] = block.samples.share[k][i];
    }
    V product[4] = {};
    for (int64_t n = 0; n < vectors; ++n) {
        const V g = vtk::load_vector(grad + n * lanes);
        for (int k = 0; k < 4; ++k) {
            A *place = sums[k] + n * lanes;
            product[k] += g * vtk::load_vector(rows[k] + n * lanes);
            vtk::store_vector(place, vtk::load_vector(place) + share[k] * g);
        }
    }
    for (int k = 0; k < 4; ++k) dots[k] = vtk::total(product[k]);
    for (int64_t d = vectors * lanes; d < D; ++d)
        for (int k = 0; k < 4; ++k) {
            dots[k] += grad[d] * load(rows[k][d]);
            sums[k][d] += share[k] * grad[d];
        }
    for (int k = 0; k < 4; ++k) block.dots[k * count + i] = dots[k];
}

// The gradients of the samples' weights and pixel coordinates, from the products of `grad` with the corners' rows.
template <class T, class A = accumulator_t<T>>
VTK_INLINE void change(Block<T> &block) {
    const Samples<A> &s = block.samples;
    const int64_t count = s.count;
    const A *dots = block.dots.data();
    A *weight = block.changes.data(), *u = weight + count, *v = u + count;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        const A a = s.a[i], c = s.c[i];
        const A d00 = s.corners[i] & 1 ? dots[i] : 0, d01 = s.corners[i] & 2 ? dots[count + i] : 0;
        const A d10 = s.corners[i] & 4 ? dots[2 * count + i] : 0, d11 = s.corners[i] & 8 ? dots[3 * count + i] : 0;
        weight[i] = (1 - c) * ((1 - a) * d00 + a * d01) + c * ((1 - a) * d10 + a * d11);
        u[i] = s.weight[i] * ((1 - c) * (d01 - d00) + c * (d11 - d10));
        v[i] = s.weight[i] * ((1 - a) * (d10 - d00) + a * (d11 - d01));
    }
}

// Plans the samples of the queries from `first` on in one (b, m, l). Those past the last query are not counted.
template <class T, class A = accumulator_t<T>>
VTK_INLINE void plan(const Backward<T> &job, const Item<T> &item, int64_t first, Block<T> &next) {
    const Sizes &z = job.sizes;
    Samples<A> &samples = next.samples;
    for (int64_t i = 0, q = first; i < samples.count; ++q) {
        const bool there = q < z.Q;
        const int64_t bq = item.b * z.Q + (there ? q : 0), at = ((bq * z.M + item.m) * z.L + item.l) * z.P;
        const Axis<A> x = axis(z, job.queries, bq, item.l, 0), y = axis(z, job.queries, bq, item.l, 1);
        const A *places = job.queries.locations + 2 * at, *weights = job.queries.weights + at;
        for (int64_t p = 0; p < z.P; ++p, ++i) {
            samples.u[i] = there ? x.origin + places[2 * p] * x.step : A(-2);
            samples.v[i] = y.origin + places[2 * p + 1] * y.step;
            samples.weight[i] = weights[p];
        }
    }
    samples.locate();
    samples.find(item.value, z.M * z.D, item.zeros, next.rows.data());
    samples.find(item.sums, z.D, item.sums + item.cells * z.D, next.sums.data());
}

// Writes the gradients of one query in one (b, m, l), whose samples are those from number `i` on.
template <class T, class A = accumulator_t<T>>
VTK_INLINE void write(const Backward<T> &job, const Item<T> &item, int64_t q, const Block<T> &block, int64_t i) {
    const Sizes &z = job.sizes;
    const Level &map = z.levels[item.l];
    const int64_t bq = item.b * z.Q + q, row = (bq * z.M + item.m) * z.L + item.l, count = block.samples.count;
    const Axis<A> x = axis(z, job.queries, bq, item.l, 0), y = axis(z, job.queries, bq, item.l, 1);
    const A *weight = block.changes.data() + i, *u = weight + count, *v = u + count;
    const A *moves = job.queries.locations + row * z.P * 2;
    A *places = job.grads.locations + row * z.P * 2, *weights = job.grads.weights + row * z.P;
    A moved[4] = {};  // gradients of the pixel coordinates, and of those times the offsets, summed over p
    for (int64_t p = 0; p < z.P; ++p) {
        weights[p] = weight[p];
        places[2 * p] = places[2 * p + 1] = 0;
        if (!block.samples.corners[i + p]) continue;  // its weight or its offset may be infinite, and 0 * infinity is NaN
        places[2 * p] = u[p] * x.step;
        places[2 * p + 1] = v[p] * y.step;
        moved[0] += u[p];
        moved[1] += v[p];
        moved[2] += u[p] * moves[2 * p];
        moved[3] += v[p] * moves[2 * p + 1];
    }
    if (!job.queries.coordinates) return;
    A *point = job.grads.reference + row * job.queries.coordinates;
    const A width = static_cast<A>(map.width), height = static_cast<A>(map.height), half = A(0.5) / static_cast<A>(z.P);
    point[0] = moved[0] * width;
    point[1] = moved[1] * height;
    if (job.queries.coordinates == 4) {
        point[2] = moved[2] * width * half;
        point[3] = moved[3] * height * half;
    }
}

// All queries of one (b, m, l). The gradient of the map is summed in `sums` (H*W + 1, D) and stored at the end: there its
// rows lie side by side, while in (B, S, M, D) a head's rows lie M*D apart and share a fraction of the cache's sets. The
// last row takes what falls off the map. The next block is planned, and its rows are fetched, before this one is summed.
template <int N, class T, class A = accumulator_t<T>>
VTK_INLINE void backward_item(const Backward<T> &job, const Item<T> &item, Block<T> *blocks, A *grad) {
    const Sizes &z = job.sizes;
    const int64_t count = blocks[0].samples.count, queries = count / z.P;
    for (int k = 0; k < 2; ++k) {
        std::fill_n(blocks[k].samples.width, count, static_cast<A>(z.levels[item.l].width));
        std::fill_n(blocks[k].samples.height, count, static_cast<A>(z.levels[item.l].height));
    }
    std::fill_n(item.sums, (item.cells + 1) * z.D, A(0));
    if (z.Q) plan(job, item, 0, blocks[0]);
    for (int64_t q = 0; q < z.Q; q += queries) {
        Block<T> &now = blocks[q / queries % 2], &next = blocks[(q / queries + 1) % 2];
        if (q + queries < z.Q) plan(job, item, q + queries, next);
        const int64_t last = std::min(queries, z.Q - q);
        for (int64_t k = 0; k < last; ++k) {
            const T *given = job.grad + ((item.b * z.Q + q + k) * z.M + item.m) * z.D;
            for (int64_t d = 0; d < z.D; ++d) grad[d] = load(given[d]);
            for (int64_t i = k * z.P; i < (k + 1) * z.P; ++i) {
                next.fetch_corners(i, z.D);
                touch_corners<N>(now, i, grad, z.D);
            }
        }
        change(now);
        for (int64_t k = 0; k < last; ++k) write(job, item, q + k, now, k * z.P);
    }
    const int64_t stride = z.M * z.D, bytes = z.D * static_cast<int64_t>(sizeof(T));
    T *out = job.grad_value + item.offset;
    if (job.streams) {  // then T is A
        for (int64_t cell = 0; cell < item.cells; ++cell)
            vtk::stream(reinterpret_cast<char *>(out + cell * stride), reinterpret_cast<const char *>(item.sums + cell * z.D), bytes);
        vtk::end_stream();
    } else {
        for (int64_t cell = 0; cell < item.cells; ++cell)
            for (int64_t d = 0; d < z.D; ++d) store(out[cell * stride + d], item.sums[cell * z.D + d]);
    }
}

// Items are (b, m, l), l fastest.
template <class T>
VTK_INLINE void backward_range(const Backward<T> &job, int64_t begin, int64_t end) {
    using A = accumulator_t<T>;
    const Sizes &z = job.sizes;
    int64_t most = 0;
    for (const Level &level : z.levels) most = std::max(most, level.height * level.width);
    const std::vector<T> zeros(z.D);
    std::vector<A> grad(z.D), sums((most + 1) * z.D);
    const int64_t count = std::max<int64_t>(1, kBlock / z.P) * z.P;
    Block<T> blocks[2] = {Block<T>(count), Block<T>(count)};
    for (int64_t i = begin; i < end; ++i) {
        const int64_t l = i % z.L, m = i / z.L % z.M, b = i / z.L / z.M;
        const int64_t offset = ((b * z.S + z.levels[l].start) * z.M + m) * z.D, cells = z.levels[l].height * z.levels[l].width;
        const Item<T> item{b, m, l, offset, cells, job.value + offset, zeros.data(), sums.data()};
        if (z.D == 32)
            backward_item<32 / vtk::lanes<A>>(job, item, blocks, grad.data());
        else
            backward_item<0>(job, item, blocks, grad.data());
    }
}

// weights = softmax(logits), row by row.
template <class A>
VTK_INLINE void softmax_range(const A *logits, A *weights, int64_t points, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) softmax(logits + row * points, weights + row * points, points);
}

// grads = weights * (grads - <weights, grads>), row by row: the gradient of the softmax, in place.
template <class A>
VTK_INLINE void softmax_gradient_range(const A *__restrict weights, A *__restrict grads, int64_t points, int64_t begin,
                                       int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
        const A *w = weights + row * points;
        A *g = grads + row * points, total = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t i = 0; i < points; ++i) total += w[i] * g[i];
        for (int64_t i = 0; i < points; ++i) g[i] = w[i] * (g[i] - total);
    }
}

}  // namespace
