// Multi-scale deformable attention on the CPU: forward and backward, in the notation of reference.py.
//
// A query's samples are first planned (softmax, locations, cell, fractions), then summed. Nothing of the size of the sampled
// values is stored. Threads: the forward pass is parallel over (b, m, q), each of which writes its own row of the output; the
// backward pass is parallel over (b, m, level), each of which alone writes the rows of grad_value of its head and level, so no
// sum is shared between threads, and its order never changes. The softmax before and after it is parallel over (b, q, m).
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>
#include <vector>

#include "arrays.h"
#include "parallel.h"
#include "simd.h"
#include "vectors.h"

namespace {

using vtk::accumulator_t;
using vtk::Array;
using vtk::bfloat16;
using vtk::float16;
using vtk::load;
using vtk::store;

struct Level {
    int64_t height, width, start;
};

struct Sizes {
    int64_t B, S, M, D, Q, L, P;
    std::vector<Level> levels;
};

// Where one sample lies: the cell (row, col) of its upper left corner, and how far it is from it.
template <class A>
struct Sample {
    int64_t row, col;
    A a, c, weight;
    bool counted;
};

// What the queries bring. Points: locations (B,Q,M,L,P,2) and weights (B,Q,M,L,P). Attention: reference (B,Q,L,2|4),
// offsets in `locations`, and logits in `weights`, until `softmax_all` has replaced them.
template <class A>
struct Queries {
    const A *locations, *weights, *reference;
    int64_t coordinates;  // 2 or 4; 0 without a reference
};

template <class A>
struct QueryGrads {
    A *locations, *weights, *reference;
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
    for (int64_t i = 1; i < count; ++i) most = logits[i] > most ? logits[i] : most;
    for (int64_t i = 0; i < count; ++i) weights[i] = exponential(logits[i] - most);
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += weights[i];
    const A scale = 1 / sum;
    for (int64_t i = 0; i < count; ++i) weights[i] *= scale;
}

// A location p becomes the pixel p * side - 0.5; a reference r and an offset o become r * side - 0.5 + o * step, which is the
// same: step is 1 for a point, size * side / (2 P) for a box.
template <class A>
struct Axis {
    A origin, step, factor;  // factor: d pixel / d location, or d pixel / d offset = step
};

template <class A>
VTK_INLINE Axis<A> axis(const Sizes &z, const Queries<A> &queries, int64_t bq, int64_t l, int64_t xy) {
    const A side = static_cast<A>(xy ? z.levels[l].height : z.levels[l].width);
    if (!queries.coordinates) return {A(-0.5), side, side};
    const A *point = queries.reference + (bq * z.L + l) * queries.coordinates;
    const A step = queries.coordinates == 4 ? point[2 + xy] * side * (A(0.5) / static_cast<A>(z.P)) : A(1);
    return {point[xy] * side - A(0.5), step, step};
}

// Plans the P samples of one query, head and level; `row` counts (b, q, m, l).
template <class A>
VTK_INLINE void plan(const Sizes &z, const Queries<A> &queries, int64_t bq, int64_t row, int64_t l, const A *weights,
                     Sample<A> *samples) {
    const Axis<A> x = axis(z, queries, bq, l, 0), y = axis(z, queries, bq, l, 1);
    const A height = static_cast<A>(z.levels[l].height), width = static_cast<A>(z.levels[l].width);
    const A *places = queries.locations + row * z.P * 2;
    for (int64_t p = 0; p < z.P; ++p) {
        const A u = x.origin + places[2 * p] * x.step, v = y.origin + places[2 * p + 1] * y.step;
        Sample<A> &sample = samples[p];
        sample.counted = u > -1 && u < width && v > -1 && v < height;  // false for NaN
        if (!sample.counted) continue;
        const A col = std::floor(u), top = std::floor(v);
        sample.row = static_cast<int64_t>(top);
        sample.col = static_cast<int64_t>(col);
        sample.a = u - col;
        sample.c = v - top;
        sample.weight = weights[p];
    }
}

// The rows of `value` under the four corners of a sample (nullptr outside the map), in the order 00, 01, 10, 11.
template <class T>
VTK_INLINE void corners(T *level, int64_t stride, const Level &map, int64_t row, int64_t col, T *rows[4]) {
    const bool up = row >= 0, down = row + 1 < map.height, left = col >= 0, right = col + 1 < map.width;
    T *first = level + (row * map.width + col) * stride;
    rows[0] = up && left ? first : nullptr;
    rows[1] = up && right ? first + stride : nullptr;
    rows[2] = down && left ? first + map.width * stride : nullptr;
    rows[3] = down && right ? first + (map.width + 1) * stride : nullptr;
}

template <class T>
struct Term {
    const T *row;
    accumulator_t<T> factor;
};

// out[d] = sum over terms of factor * row[d] for N vectors of channels at a time, which stay in registers. The number of
// terms is a multiple of 4: a register is added to once for four rows, so that its latency is waited for a quarter as often.
template <int N, class T>
VTK_INLINE int64_t add_up(const Term<T> *terms, int64_t count, T *out, int64_t from, int64_t D) {
    using V = vtk::Vector<accumulator_t<T>>;
    constexpr int lanes = vtk::lanes<accumulator_t<T>>;
    for (; from + N * lanes <= D; from += N * lanes) {
        V sum[N] = {};
        for (const Term<T> *term = terms; term < terms + count; term += 4)
            for (int n = 0; n < N; ++n) {
                const int64_t d = from + n * lanes;
                const V even = term[0].factor * vtk::load_vector(term[0].row + d) + term[1].factor * vtk::load_vector(term[1].row + d);
                const V odd = term[2].factor * vtk::load_vector(term[2].row + d) + term[3].factor * vtk::load_vector(term[3].row + d);
                sum[n] += even + odd;
            }
        for (int n = 0; n < N; ++n)
            for (int i = 0; i < lanes; ++i) store(out[from + n * lanes + i], sum[n][i]);
    }
    return from;
}

template <class T>
VTK_INLINE void add_up_rest(const Term<T> *terms, int64_t count, T *out, int64_t from, int64_t D) {
    for (; from < D; ++from) {
        accumulator_t<T> sum = 0;
        for (int64_t i = 0; i < count; ++i) sum += terms[i].factor * load(terms[i].row[from]);
        store(out[from], sum);
    }
}

template <class T>
struct Forward {
    const Sizes &sizes;
    const Queries<accumulator_t<T>> &queries;
    const T *value;
    T *out;
};

template <class T>
VTK_INLINE void forward_range(const Forward<T> &job, int64_t begin, int64_t end) {
    using A = accumulator_t<T>;
    const Sizes &z = job.sizes;
    const int64_t points = z.L * z.P, stride = z.M * z.D;
    std::vector<A> weights(points);
    std::vector<Sample<A>> samples(z.P);
    std::vector<Term<T>> terms(points * 4 + 3);
    const std::vector<T> nothing(z.D);
    for (int64_t row = begin; row < end; ++row) {  // m fastest: the heads of a query look at neighbouring cells
        const int64_t m = row % z.M, bq = row / z.M, b = bq / z.Q;
        const A *given = job.queries.weights + row * points;
        if (job.queries.coordinates) {
            softmax(given, weights.data(), points);
            given = weights.data();
        }
        int64_t count = 0;
        for (int64_t l = 0; l < z.L; ++l) {
            plan(z, job.queries, bq, row * z.L + l, l, given + l * z.P, samples.data());
            const T *level = job.value + (b * z.S + z.levels[l].start) * stride + m * z.D;
            for (int64_t p = 0; p < z.P; ++p) {
                const Sample<A> &s = samples[p];
                if (!s.counted) continue;
                const A low = s.weight * s.c, high = s.weight - low;
                const A share[4] = {high - high * s.a, high * s.a, low - low * s.a, low * s.a};
                const T *rows[4];
                corners(level, stride, z.levels[l], s.row, s.col, rows);
                for (int k = 0; k < 4; ++k)
                    if (rows[k]) {
                        for (int64_t d = 0; d < z.D; d += 64 / sizeof(T)) __builtin_prefetch(rows[k] + d);
                        terms[count++] = {rows[k], share[k]};
                    }
            }
        }
        while (count % 4) terms[count++] = {nothing.data(), 0};
        T *out = job.out + row * z.D;
        int64_t from = add_up<4>(terms.data(), count, out, 0, z.D);
        from = add_up<1>(terms.data(), count, out, from, z.D);
        add_up_rest(terms.data(), count, out, from, z.D);
    }
}

template <class T>
struct Backward {
    using A = accumulator_t<T>;
    const Sizes &sizes;
    const Queries<A> &queries;  // with weights, never logits
    const T *grad, *value;
    T *grad_value;
    const QueryGrads<A> &grads;  // weights: d out / d weight, before the softmax
};

// The corners of a sample: the dot product of each one's row with `grad`, and to each one's gradient its share of `grad`.
// Four rows at once where all lie on the map, which is the common case and keeps the processor's loads busy.
template <int N, class T, class A>
VTK_INLINE void four_corners(T *const rows[4], A *const grad_rows[4], const A *grad, const A share[4], A dot[4], int64_t D) {
    using V = vtk::Vector<A>;
    constexpr int lanes = vtk::lanes<A>;
    const int64_t vectors = N ? N : D / lanes;
    V sum[4] = {};
    for (int64_t n = 0; n < vectors; ++n) {
        const V g = vtk::load_vector(grad + n * lanes);
        for (int k = 0; k < 4; ++k) {
            A *place = grad_rows[k] + n * lanes;
            sum[k] += g * vtk::load_vector(rows[k] + n * lanes);
            vtk::store_vector(place, vtk::load_vector(place) + share[k] * g);
        }
    }
    for (int k = 0; k < 4; ++k) {
        dot[k] = vtk::total(sum[k]);
        for (int64_t d = vectors * lanes; d < D; ++d) {
            dot[k] += grad[d] * load(rows[k][d]);
            grad_rows[k][d] += share[k] * grad[d];
        }
    }
}

template <class T, class A>
VTK_INLINE A corner(const T *__restrict row, A *__restrict grad_row, const A *__restrict grad, A share, int64_t D) {
    A dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t d = 0; d < D; ++d) {
        dot += grad[d] * load(row[d]);
        grad_row[d] += share * grad[d];
    }
    return dot;
}

// All queries of one (b, m, l). The gradient of the map is summed in `grad_map` (H*W, D) and stored at the end: there its rows
// lie side by side, while in (B, S, M, D) a head's rows lie M*D apart and share a fraction of the cache's sets.
template <int N, class T>
VTK_INLINE void backward_item(const Backward<T> &job, int64_t item, Sample<accumulator_t<T>> *samples,
                              accumulator_t<T> *grad, accumulator_t<T> *grad_map) {
    using A = accumulator_t<T>;
    const Sizes &z = job.sizes;
    const int64_t l = item % z.L, m = item / z.L % z.M, b = item / z.L / z.M, stride = z.M * z.D;
    const Level &map = z.levels[l];
    const int64_t offset = (b * z.S + map.start) * stride + m * z.D, cells = map.height * map.width;
    std::fill(grad_map, grad_map + cells * z.D, A(0));
    // The next query is planned, and its rows are fetched, while this one is summed.
    const auto look_ahead = [&](int64_t q, Sample<A> *next) __attribute__((always_inline)) {
        const int64_t bq = b * z.Q + q, row = (bq * z.M + m) * z.L + l;
        plan(z, job.queries, bq, row, l, job.queries.weights + row * z.P, next);
        for (int64_t p = 0; p < z.P; ++p) {
            if (!next[p].counted) continue;
            const T *rows[4];
            A *sums[4];
            corners(job.value + offset, stride, map, next[p].row, next[p].col, rows);
            corners(grad_map, z.D, map, next[p].row, next[p].col, sums);
            for (int k = 0; k < 4; ++k)
                for (int64_t d = 0; rows[k] && d < z.D; d += 64 / sizeof(A)) {
                    __builtin_prefetch(rows[k] + d);
                    __builtin_prefetch(sums[k] + d, 1);
                }
        }
    };
    if (z.Q) look_ahead(0, samples);
    for (int64_t q = 0; q < z.Q; ++q) {
        const int64_t bq = b * z.Q + q, row = bq * z.M + m, first = (row * z.L + l) * z.P;
        for (int64_t d = 0; d < z.D; ++d) grad[d] = load(job.grad[row * z.D + d]);
        if (q + 1 < z.Q) look_ahead(q + 1, samples + (q + 1) % 2 * z.P);
        const Axis<A> x = axis(z, job.queries, bq, l, 0), y = axis(z, job.queries, bq, l, 1);
        A moved[4] = {};  // gradients of the pixel coordinates, and of those times the offsets, summed over p
        for (int64_t p = 0; p < z.P; ++p) {
            const Sample<A> &s = samples[q % 2 * z.P + p];
            A *places = job.grads.locations + (first + p) * 2, *weight = job.grads.weights + first + p;
            if (!s.counted) {
                places[0] = places[1] = *weight = 0;
                continue;
            }
            const T *rows[4];
            A *grad_rows[4];
            corners(job.value + offset, stride, map, s.row, s.col, rows);
            corners(grad_map, z.D, map, s.row, s.col, grad_rows);
            const A share[4] = {(1 - s.c) * (1 - s.a), (1 - s.c) * s.a, s.c * (1 - s.a), s.c * s.a};
            const A part[4] = {share[0] * s.weight, share[1] * s.weight, share[2] * s.weight, share[3] * s.weight};
            A dot[4];
            if (rows[0] && rows[3])
                four_corners<N>(rows, grad_rows, grad, part, dot, z.D);
            else
                for (int k = 0; k < 4; ++k) dot[k] = rows[k] ? corner(rows[k], grad_rows[k], grad, part[k], z.D) : 0;
            *weight = share[0] * dot[0] + share[1] * dot[1] + share[2] * dot[2] + share[3] * dot[3];
            const A du = s.weight * ((1 - s.c) * (dot[1] - dot[0]) + s.c * (dot[3] - dot[2]));
            const A dv = s.weight * ((1 - s.a) * (dot[2] - dot[0]) + s.a * (dot[3] - dot[1]));
            places[0] = du * x.factor;
            places[1] = dv * y.factor;
            if (!job.queries.coordinates) continue;
            const A *moves = job.queries.locations + (first + p) * 2;
            moved[0] += du;
            moved[1] += dv;
            moved[2] += du * moves[0];
            moved[3] += dv * moves[1];
        }
        if (!job.queries.coordinates) continue;
        A *point = job.grads.reference + (row * z.L + l) * job.queries.coordinates;
        const A width = static_cast<A>(map.width), height = static_cast<A>(map.height), half = A(0.5) / static_cast<A>(z.P);
        point[0] = moved[0] * width;
        point[1] = moved[1] * height;
        if (job.queries.coordinates == 4) {
            point[2] = moved[2] * width * half;
            point[3] = moved[3] * height * half;
        }
    }
    for (int64_t cell = 0; cell < cells; ++cell)
        for (int64_t d = 0; d < z.D; ++d) store(job.grad_value[offset + cell * stride + d], grad_map[cell * z.D + d]);
}

template <class T>
VTK_INLINE void backward_range(const Backward<T> &job, int64_t begin, int64_t end) {
    using A = accumulator_t<T>;
    std::vector<Sample<A>> samples(2 * job.sizes.P);
    int64_t cells = 0;
    for (const Level &level : job.sizes.levels) cells = std::max(cells, level.height * level.width);
    std::vector<A> grad(job.sizes.D), grad_map(cells * job.sizes.D);
    for (int64_t item = begin; item < end; ++item)
        if (job.sizes.D == 32)
            backward_item<32 / vtk::lanes<A>>(job, item, samples.data(), grad.data(), grad_map.data());
        else
            backward_item<0>(job, item, samples.data(), grad.data(), grad_map.data());
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

// The functions that exist once for each instruction set. They are plain, as VTK_SIMD asks.
#define VTK_ELEMENT(T)                                                                                                  \
    VTK_SIMD void forward_rows(const Forward<T> &job, int64_t begin, int64_t end) { forward_range(job, begin, end); }   \
    VTK_SIMD void backward_rows(const Backward<T> &job, int64_t begin, int64_t end) { backward_range(job, begin, end); }
#define VTK_ACCUMULATOR(A)                                                                                              \
    VTK_SIMD void softmax_rows(const A *logits, A *weights, int64_t points, int64_t begin, int64_t end) {               \
        softmax_range(logits, weights, points, begin, end);                                                             \
    }                                                                                                                   \
    VTK_SIMD void softmax_gradient_rows(const A *weights, A *grads, int64_t points, int64_t begin, int64_t end) {       \
        softmax_gradient_range(weights, grads, points, begin, end);                                                     \
    }

VTK_ELEMENT(double)
VTK_ELEMENT(float)
VTK_ELEMENT(bfloat16)
VTK_ELEMENT(float16)
VTK_ACCUMULATOR(double)
VTK_ACCUMULATOR(float)

using Shapes = std::vector<std::pair<int64_t, int64_t>>;

// Sizes from the tensors, and a refusal where they do not fit: what lies beyond the arrays is never read.
Sizes sizes_of(const Array &value, const Shapes &shapes, const Array &locations) {
    if (value.ndim() != 4 || locations.ndim() != 6) throw std::invalid_argument("value: expected (B, S, M, D)");
    Sizes z;
    z.B = value.shape(0), z.S = value.shape(1), z.M = value.shape(2), z.D = value.shape(3);
    z.Q = locations.shape(1), z.L = static_cast<int64_t>(shapes.size()), z.P = locations.shape(4);
    int64_t start = 0;
    for (const auto &[height, width] : shapes) {
        z.levels.push_back({height, width, start});
        start += height * width;
    }
    if (start != z.S) throw std::invalid_argument("shapes: their cells are not those of value");
    return z;
}

void expect(bool fits, const char *name) {
    if (!fits) throw std::invalid_argument(std::string(name) + ": its size does not fit the other arguments");
}

template <class A>
void expect_samples(const Sizes &z, const Array &locations, const Array &weights) {
    const int64_t count = z.B * z.Q * z.M * z.L * z.P;
    const auto wide = vtk::is_float(locations.dtype(), 8 * sizeof(A)) && vtk::is_float(weights.dtype(), 8 * sizeof(A));
    expect(wide && static_cast<int64_t>(locations.size()) == 2 * count, "locations");
    expect(wide && static_cast<int64_t>(weights.size()) == count, "weights");
}

template <class T>
void forward(const Sizes &z, const Queries<accumulator_t<T>> &queries, const Array &value, const Array &out, int threads) {
    expect(static_cast<int64_t>(out.size()) == z.B * z.Q * z.M * z.D && out.dtype() == value.dtype(), "out");
    const Forward<T> job{z, queries, vtk::data<T>(value), vtk::data<T>(out)};
    vtk::parallel_for(z.B * z.M * z.Q, threads, 64, [&](int64_t begin, int64_t end) { forward_rows(job, begin, end); }, 4);
}

template <class T>
void backward(const Sizes &z, const Queries<accumulator_t<T>> &queries, const Array &grad, const Array &value,
              const Array &grad_value, const QueryGrads<accumulator_t<T>> &grads, int threads) {
    expect(static_cast<int64_t>(grad.size()) == z.B * z.Q * z.M * z.D && grad.dtype() == value.dtype(), "grad");
    expect(grad_value.size() == value.size() && grad_value.dtype() == value.dtype(), "grad_value");
    const Backward<T> job{z, queries, vtk::data<T>(grad), vtk::data<T>(value), vtk::data<T>(grad_value), grads};
    vtk::parallel_for(z.B * z.M * z.L, threads, 1, [&](int64_t begin, int64_t end) { backward_rows(job, begin, end); }, 8);
}

void sample_forward(const Array &value, const Shapes &shapes, const Array &locations, const Array &weights, const Array &out,
                    int threads) {
    nanobind::gil_scoped_release release;
    const Sizes z = sizes_of(value, shapes, locations);
    vtk::with_element(value, "value", [&](auto element) {
        using T = decltype(element);
        using A = accumulator_t<T>;
        expect_samples<A>(z, locations, weights);
        const Queries<A> queries{vtk::data<A>(locations), vtk::data<A>(weights), nullptr, 0};
        forward<T>(z, queries, value, out, threads);
    });
}

void sample_backward(const Array &grad, const Array &value, const Shapes &shapes, const Array &locations, const Array &weights,
                     const Array &grad_value, const Array &grad_locations, const Array &grad_weights, int threads) {
    nanobind::gil_scoped_release release;
    const Sizes z = sizes_of(value, shapes, locations);
    vtk::with_element(value, "value", [&](auto element) {
        using T = decltype(element);
        using A = accumulator_t<T>;
        expect_samples<A>(z, locations, weights);
        expect_samples<A>(z, grad_locations, grad_weights);
        const Queries<A> queries{vtk::data<A>(locations), vtk::data<A>(weights), nullptr, 0};
        const QueryGrads<A> grads{vtk::data<A>(grad_locations), vtk::data<A>(grad_weights), nullptr};
        backward<T>(z, queries, grad, value, grad_value, grads, threads);
    });
}

template <class A>
int64_t coordinates_of(const Sizes &z, const Array &reference) {
    const int64_t found = static_cast<int64_t>(reference.shape(reference.ndim() - 1));
    expect((found == 2 || found == 4) && static_cast<int64_t>(reference.size()) == z.B * z.Q * z.L * found &&
               vtk::is_float(reference.dtype(), 8 * sizeof(A)),
           "reference");
    return found;
}

void attention_forward(const Array &value, const Shapes &shapes, const Array &reference, const Array &offsets,
                       const Array &logits, const Array &out, int threads) {
    nanobind::gil_scoped_release release;
    const Sizes z = sizes_of(value, shapes, offsets);
    vtk::with_element(value, "value", [&](auto element) {
        using T = decltype(element);
        using A = accumulator_t<T>;
        expect_samples<A>(z, offsets, logits);
        const int64_t coordinates = coordinates_of<A>(z, reference);
        const Queries<A> queries{vtk::data<A>(offsets), vtk::data<A>(logits), vtk::data<A>(reference), coordinates};
        forward<T>(z, queries, value, out, threads);
    });
}

// `grad_reference` is (B,Q,M,L,2|4): one part a head, so that no two threads share a sum.
void attention_backward(const Array &grad, const Array &value, const Shapes &shapes, const Array &reference,
                        const Array &offsets, const Array &logits, const Array &grad_value, const Array &grad_reference,
                        const Array &grad_offsets, const Array &grad_logits, int threads) {
    nanobind::gil_scoped_release release;
    const Sizes z = sizes_of(value, shapes, offsets);
    vtk::with_element(value, "value", [&](auto element) {
        using T = decltype(element);
        using A = accumulator_t<T>;
        expect_samples<A>(z, offsets, logits);
        expect_samples<A>(z, grad_offsets, grad_logits);
        const int64_t coordinates = coordinates_of<A>(z, reference), points = z.L * z.P, rows = z.B * z.Q * z.M;
        expect(static_cast<int64_t>(grad_reference.size()) == rows * z.L * coordinates &&
                   grad_reference.dtype() == reference.dtype(),
               "grad_reference");
        std::vector<A> weights(rows * points);
        A *probabilities = weights.data(), *changes = vtk::data<A>(grad_logits);
        const A *scores = vtk::data<A>(logits);
        vtk::parallel_for(rows, threads, 1024, [&](int64_t begin, int64_t end) {
            softmax_rows(scores, probabilities, points, begin, end);
        });
        const Queries<A> queries{vtk::data<A>(offsets), probabilities, vtk::data<A>(reference), coordinates};
        const QueryGrads<A> grads{vtk::data<A>(grad_offsets), changes, vtk::data<A>(grad_reference)};
        backward<T>(z, queries, grad, value, grad_value, grads, threads);
        vtk::parallel_for(rows, threads, 1024, [&](int64_t begin, int64_t end) {
            softmax_gradient_rows(probabilities, changes, points, begin, end);
        });
    });
}

}  // namespace

void register_deformable(nanobind::module_ &module) {
    module.def("sample_forward", &sample_forward);
    module.def("sample_backward", &sample_backward);
    module.def("attention_forward", &attention_forward);
    module.def("attention_backward", &attention_backward);
}
