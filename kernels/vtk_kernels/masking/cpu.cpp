// The masking operators on the CPU: see reference.py for what they compute.
//
// All but the sums are copies of rows, so what counts is to touch every byte once and never to wait: samples (or lines of
// the image) are divided among the threads, and a row is copied with the widest moves the processor has.
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "arrays.h"
#include "elements.h"
#include "pages.h"
#include "parallel.h"
#include "simd.h"
#include "stream.h"

namespace nb = nanobind;
using vtk::Array;
using vtk::bfloat16;
using vtk::float16;

namespace {

constexpr int64_t kGrainBytes = 1 << 20;  // less is not worth waking a thread
constexpr int kChunks = 4;                // ranges a thread, so that a thread that was held up does not hold up the rest
constexpr int64_t kKeyBytes = 64;         // drawing and ranking a key takes as long as moving so many bytes

int64_t grain(int64_t bytes_an_item) { return std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(1, bytes_an_item)); }

// ---------------------------------------------------------------------------------------------------- sets of tokens

// Calls work(begin, end) over [0, count), items that each move `bytes`.
template <class Work>
void share_out(int64_t count, int64_t bytes, int threads, const Work &work) {
    vtk::parallel_for(count, threads, grain(bytes), work, kChunks);
}

// A result about to be written.
char *fresh(const Array &out) {
    vtk::ask_for_large_pages(out.data(), out.nbytes());
    return vtk::data<char>(out);
}

// Every sample must name distinct tokens of [0, tokens): nothing below looks outside its arrays.
void check_keep(const int64_t *keep, int64_t batch, int64_t kept, int64_t tokens) {
    std::vector<int64_t> last(static_cast<size_t>(tokens), -1);
    for (int64_t sample = 0; sample < batch; ++sample)
        for (int64_t entry = sample * kept; entry < (sample + 1) * kept; ++entry) {
            const int64_t token = keep[entry];
            if (token < 0 || token >= tokens)
                throw std::invalid_argument("keep: expected tokens in [0, " + std::to_string(tokens) + "), got " +
                                            std::to_string(token) + " in sample " + std::to_string(sample));
            if (last[static_cast<size_t>(token)] == sample)
                throw std::invalid_argument("keep: sample " + std::to_string(sample) + " names token " +
                                            std::to_string(token) + " twice");
            last[static_cast<size_t>(token)] = sample;
        }
}

// (B, N): where in `keep` each token stands; -1 for those not kept.
std::vector<int32_t> places_of(const int64_t *keep, int64_t batch, int64_t kept, int64_t tokens) {
    check_keep(keep, batch, kept, tokens);
    std::vector<int32_t> places(static_cast<size_t>(batch * tokens), -1);
    for (int64_t sample = 0; sample < batch; ++sample)
        for (int64_t entry = 0; entry < kept; ++entry)
            places[static_cast<size_t>(sample * tokens + keep[sample * kept + entry])] = static_cast<int32_t>(entry);
    return places;
}

// keys[i] = the first word of Philox4x32-10 at counter (i, sample, step) under `seed` (Salmon et al., SC 2011).
VTK_SIMD void draw_keys(uint32_t *keys, int64_t tokens, uint32_t sample, uint64_t seed, uint64_t step) {
    for (int64_t token = 0; token < tokens; ++token) {
        uint32_t c0 = static_cast<uint32_t>(token), c1 = sample;
        uint32_t c2 = static_cast<uint32_t>(step), c3 = static_cast<uint32_t>(step >> 32);
        uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
        for (int round = 0; round < 10; ++round) {
            const uint64_t product0 = uint64_t{c0} * 0xD2511F53u, product1 = uint64_t{c2} * 0xCD9E8D57u;
            c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
            c1 = static_cast<uint32_t>(product1);
            c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
            c3 = static_cast<uint32_t>(product0);
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        keys[token] = c0;
    }
}

// The `rank`-th smallest key (from 1): the largest number that fewer than `rank` keys are below, found bit by bit. 32
// passes over keys in the first cache, without a branch, beat a partial sort.
VTK_SIMD uint32_t select_key(const uint32_t *keys, int64_t count, int64_t rank) {
    uint32_t threshold = 0;
    for (int bit = 31; bit >= 0; --bit) {
        const uint32_t candidate = threshold | 1u << bit;
        uint32_t below = 0;
        for (int64_t i = 0; i < count; ++i) below += keys[i] < candidate;
        if (below < static_cast<uint64_t>(rank)) threshold = candidate;
    }
    return threshold;
}

void random_keep(const Array &out, int64_t tokens, uint64_t seed, uint64_t step, int threads) {
    nb::gil_scoped_release release;
    const int64_t batch = static_cast<int64_t>(out.shape(0)), kept = static_cast<int64_t>(out.shape(1));
    int64_t *chosen = vtk::data<int64_t>(out);
    std::vector<uint32_t> keys(static_cast<size_t>(batch ? tokens : 0) * static_cast<size_t>(std::max(1, threads)));
    const int64_t share = (batch + std::max(1, threads) - 1) / std::max(1, threads);
    // A thread's samples are a block of `share`, so that its scratch follows from the block it is in.
    vtk::parallel_for(share ? (batch + share - 1) / share : 0, threads, grain(share * tokens * kKeyBytes), [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
            uint32_t *mine = keys.data() + block * tokens;
            for (int64_t sample = block * share; sample < std::min(batch, (block + 1) * share); ++sample) {
                draw_keys(mine, tokens, static_cast<uint32_t>(sample), seed, step);
                const uint32_t threshold = select_key(mine, tokens, kept);
                int64_t below = 0;
                for (int64_t token = 0; token < tokens; ++token) below += mine[token] < threshold;
                int64_t equal = kept - below;  // of equal keys the first ones are kept
                int64_t *place = chosen + sample * kept;
                for (int64_t token = 0; token < tokens; ++token)
                    if (mine[token] < threshold || (mine[token] == threshold && equal-- > 0)) *place++ = token;
            }
        }
    });
}

// ------------------------------------------------------------------------------------------------------------ tokens

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

// ----------------------------------------------------------------------------------------------------------- patches

// An image (B, C, rows * height, columns * width) cut into patches; widths in bytes, whatever the elements are.
struct Patches {
    const char *image, *patches, *fill;
    char *out;
    const int64_t *keep;
    const int32_t *places;
    int64_t channels, rows, columns, height, width, kept;
    bool streamed;
};

constexpr int64_t kAny = 0;
constexpr int64_t kAhead = 8;  // lines that are asked for before they are needed: a patch is too short for the processor to guess

// Copies a line of one patch; `Width` bytes when that is known.
template <int64_t Width>
VTK_INLINE void copy_line(char *to, const char *from, int64_t width, bool streamed) {
    if (streamed)
        vtk::stream(to, from, Width == kAny ? width : Width);
    else
        std::memcpy(to, from, static_cast<size_t>(Width == kAny ? width : Width));
}

// Items [begin, end) of the B * rows strips of patches. A strip's kept patches come from `image` or from `patches`, the
// others from `fill` (C, height, width).
template <int64_t Width>
VTK_INLINE void compose_strips(const Patches &job, int64_t begin, int64_t end) {
    const int64_t width = Width == kAny ? job.width : Width, columns = job.columns, line_bytes = columns * width;
    for (int64_t strip = begin; strip < end; ++strip) {
        const int64_t sample = strip / job.rows, across = strip % job.rows;
        const int32_t *places = job.places + strip * columns;
        for (int64_t channel = 0; channel < job.channels; ++channel)
            for (int64_t y = 0; y < job.height; ++y) {
                const int64_t in_patch = channel * job.height + y;
                const int64_t line = ((sample * job.channels + channel) * job.rows + across) * job.height + y;
                char *to = job.out + line * line_bytes;
                const char *fill = job.fill + in_patch * width;
                if (job.image) {
                    const char *from = job.image + line * line_bytes;
                    for (int64_t column = 0; column < columns; ++column) {
                        const char *source = places[column] >= 0 ? from + column * width : fill;
                        if (places[column] >= 0) __builtin_prefetch(source + kAhead * line_bytes);
                        copy_line<Width>(to + column * width, source, width, job.streamed);
                    }
                } else {
                    const char *from = job.patches + (sample * job.kept * job.channels * job.height + in_patch) * width;
                    const int64_t patch_bytes = job.channels * job.height * width;
                    for (int64_t column = 0; column < columns; ++column) {
                        const char *source = places[column] >= 0 ? from + places[column] * patch_bytes : fill;
                        if (places[column] >= 0) __builtin_prefetch(source + kAhead * width);
                        copy_line<Width>(to + column * width, source, width, job.streamed);
                    }
                }
            }
    }
}

// Items [begin, end) of the B * K kept patches, each written as (channel, row, column).
template <int64_t Width>
VTK_INLINE void cut_patches(const Patches &job, int64_t begin, int64_t end) {
    const int64_t width = Width == kAny ? job.width : Width, line_bytes = job.columns * width;
    for (int64_t patch = begin; patch < end; ++patch) {
        const int64_t sample = patch / job.kept, token = job.keep[patch];
        char *to = job.out + patch * job.channels * job.height * width;
        for (int64_t channel = 0; channel < job.channels; ++channel) {
            const int64_t line = ((sample * job.channels + channel) * job.rows + token / job.columns) * job.height;
            const char *from = job.image + line * line_bytes + token % job.columns * width;
            for (int64_t y = 0; y < job.height; ++y, to += width) {
                __builtin_prefetch(from + (y + kAhead) * line_bytes);
                copy_line<Width>(to, from + y * line_bytes, width, job.streamed);
            }
        }
    }
}

template <int64_t Width>
struct Bytes {};
#define VTK_WIDTH(Width)                                                                                   \
    VTK_SIMD void compose(Bytes<Width>, const Patches &job, int64_t begin, int64_t end) {                  \
        compose_strips<Width>(job, begin, end);                                                            \
        vtk::end_stream();                                                                                 \
    }                                                                                                      \
    VTK_SIMD void cut(Bytes<Width>, const Patches &job, int64_t begin, int64_t end) {                      \
        cut_patches<Width>(job, begin, end);                                                               \
        vtk::end_stream();                                                                                 \
    }
VTK_WIDTH(kAny)
VTK_WIDTH(16)
VTK_WIDTH(32)
VTK_WIDTH(56)
VTK_WIDTH(64)
VTK_WIDTH(128)

// Calls body(Bytes<width>{}) for the widths of common patches (4, 8, 14, 16 and 32 pixels), else Bytes<kAny>.
template <class Body>
void with_width(int64_t width, const Body &body) {
    switch (width) {
        case 16: return body(Bytes<16>{});
        case 32: return body(Bytes<32>{});
        case 56: return body(Bytes<56>{});
        case 64: return body(Bytes<64>{});
        case 128: return body(Bytes<128>{});
        default: return body(Bytes<kAny>{});
    }
}

int64_t element_bytes(const Array &array) { return array.dtype().bits / 8; }

Patches cut_up(const Array &image, const Array &keep, int64_t height, int64_t width) {
    Patches job{};
    job.channels = static_cast<int64_t>(image.shape(1));
    job.rows = static_cast<int64_t>(image.shape(2)) / height;
    job.columns = static_cast<int64_t>(image.shape(3)) / width;
    job.height = height;
    job.width = width * element_bytes(image);
    job.kept = static_cast<int64_t>(keep.shape(1));
    job.keep = vtk::data<int64_t>(keep);
    return job;
}

void keep_patches(const Array &image, const Array &keep, const Array &out, int64_t height, int64_t width, int threads) {
    nb::gil_scoped_release release;
    const int64_t batch = static_cast<int64_t>(image.shape(0));
    Patches job = cut_up(image, keep, height, width);
    check_keep(job.keep, batch, job.kept, job.rows * job.columns);
    job.image = vtk::data<char>(image);
    job.out = fresh(out);
    job.streamed = vtk::streams(job.out, static_cast<int64_t>(out.nbytes()), job.width);
    with_width(job.width, [&](auto bytes) {
        share_out(batch * job.kept, job.channels * height * job.width * 2, threads, [&](int64_t begin, int64_t end) { cut(bytes, job, begin, end); });
    });
}

void compose_image(Patches &job, const Array &keep, const Array &out, int threads) {
    const int64_t batch = static_cast<int64_t>(out.shape(0));
    const std::vector<int32_t> places = places_of(job.keep, static_cast<int64_t>(keep.shape(0)), job.kept, job.rows * job.columns);
    job.places = places.data();
    job.out = fresh(out);
    job.streamed = vtk::streams(job.out, static_cast<int64_t>(out.nbytes()), job.width);
    with_width(job.width, [&](auto bytes) {
        const int64_t strip_bytes = job.channels * job.height * job.columns * job.width;
        share_out(batch * job.rows, strip_bytes * 2, threads, [&](int64_t begin, int64_t end) { compose(bytes, job, begin, end); });
    });
}

void place_patches(const Array &patches, const Array &keep, const Array &out, int64_t height, int64_t width, int threads) {
    nb::gil_scoped_release release;
    Patches job = cut_up(out, keep, height, width);
    const std::vector<char> zero(static_cast<size_t>(job.channels * height * job.width), 0);
    job.patches = vtk::data<char>(patches);
    job.fill = zero.data();
    compose_image(job, keep, out, threads);
}

void mask_patches(const Array &image, const Array &keep, const Array &fill, const Array &out, int threads) {
    nb::gil_scoped_release release;
    Patches job = cut_up(image, keep, static_cast<int64_t>(fill.shape(1)), static_cast<int64_t>(fill.shape(2)));
    job.image = vtk::data<char>(image);
    job.fill = vtk::data<char>(fill);
    compose_image(job, keep, out, threads);
}

// Lines [begin, end) of the C * height lines of the fill: each pixel's sum over samples and patches that are not kept, in
// their order, in double. A thread owns its lines.
template <class Grad>
void sum_lines(const Array &grad, const Patches &job, const Array &out, double *all_sums, int64_t begin, int64_t end) {
    const int64_t batch = static_cast<int64_t>(grad.shape(0)), width = static_cast<int64_t>(out.shape(2));
    for (int64_t line = begin; line < end; ++line) {
        double *sums = all_sums + line * width;
        for (int64_t strip = 0; strip < batch * job.rows; ++strip) {
            const int64_t plane = strip / job.rows * job.channels + line / job.height;
            const int64_t y = strip % job.rows * job.height + line % job.height;
            const Grad *from = vtk::data<Grad>(grad) + (plane * job.rows * job.height + y) * job.columns * width;
            for (int64_t column = 0; column < job.columns; ++column, from += width)
                if (job.places[strip * job.columns + column] < 0)
                    for (int64_t i = 0; i < width; ++i) sums[i] += vtk::load(from[i]);
        }
        auto *to = vtk::data<vtk::accumulator_t<Grad>>(out) + line * width;
        for (int64_t i = 0; i < width; ++i) to[i] = static_cast<vtk::accumulator_t<Grad>>(sums[i]);
    }
}

void fill_gradient(const Array &grad, const Array &keep, const Array &out, int threads) {
    nb::gil_scoped_release release;
    Patches job = cut_up(grad, keep, static_cast<int64_t>(out.shape(1)), static_cast<int64_t>(out.shape(2)));
    const std::vector<int32_t> places = places_of(job.keep, static_cast<int64_t>(grad.shape(0)), job.kept, job.rows * job.columns);
    job.places = places.data();
    std::vector<double> sums(out.size(), 0.0);
    vtk::with_element(grad, "grad", [&](auto element) {
        using Grad = decltype(element);
        const int64_t lines = job.channels * job.height;
        share_out(lines, static_cast<int64_t>(grad.nbytes()) / std::max<int64_t>(1, lines), threads, [&](int64_t begin, int64_t end) { sum_lines<Grad>(grad, job, out, sums.data(), begin, end); });
    });
}

}  // namespace

void register_masking(nb::module_ &module) {
    module.def("random_keep", &random_keep);
    module.def("keep_tokens", &keep_tokens, nb::arg("x"), nb::arg("keep"), nb::arg("pos").none(), nb::arg("prefix").none(), nb::arg("out"), nb::arg("threads"));
    module.def("keep_tokens_backward", &keep_tokens_backward, nb::arg("grad"), nb::arg("keep"), nb::arg("grad_x").none(), nb::arg("grad_pos").none(), nb::arg("tokens"), nb::arg("threads"));
    module.def("keep_patches", &keep_patches);
    module.def("place_patches", &place_patches);
    module.def("mask_patches", &mask_patches);
    module.def("fill_gradient", &fill_gradient);
}
