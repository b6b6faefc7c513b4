// Multi-scale deformable attention on the CPU: forward and backward, in the notation of reference.py.
//
// A query's samples are first planned (samples.h), then their rows are summed (loops.h). Nothing of the size of the sampled
// values is stored. Threads: the forward pass is parallel over (b, m, q), each of which writes its own row of the output; the
// backward pass is parallel over (b, m, level), each of which alone writes the rows of grad_value of its head and level, so no
// sum is shared between threads, and its order never changes. The softmax before and after it is parallel over (b, q, m).
#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "arrays.h"
#include "loops.h"
#include "pages.h"
#include "parallel.h"
#include "simd.h"
#include "stream.h"

namespace {

using vtk::accumulator_t;
using vtk::Array;
using vtk::bfloat16;
using vtk::float16;

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
constexpr int64_t kLongestSide = 1 << 24;  // a longer one has cells between the numbers that float can hold

// Sizes from the tensors, and a refusal where they do not fit: what lies beyond the arrays is never read.
Sizes sizes_of(const Array &value, const Shapes &shapes, const Array &locations) {
    if (value.ndim() != 4 || locations.ndim() != 6) throw std::invalid_argument("value: expected (B, S, M, D)");
    Sizes z;
    z.B = value.shape(0), z.S = value.shape(1), z.M = value.shape(2), z.D = value.shape(3);
    z.Q = locations.shape(1), z.L = static_cast<int64_t>(shapes.size()), z.P = locations.shape(4);
    int64_t start = 0;
    for (const auto &[height, width] : shapes) {
        if (std::max(height, width) > kLongestSide) throw std::invalid_argument("shapes: a side is too long");
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
    const int64_t row = z.D * static_cast<int64_t>(sizeof(T)), bytes = static_cast<int64_t>(grad_value.nbytes());
    const bool streams = std::is_same_v<T, accumulator_t<T>> && row % 64 == 0 && vtk::streams(grad_value.data(), bytes, row);
    vtk::ask_for_large_pages(grad_value.data(), grad_value.nbytes());
    const Backward<T> job{z, queries, vtk::data<T>(grad), vtk::data<T>(value), vtk::data<T>(grad_value), grads, streams};
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
