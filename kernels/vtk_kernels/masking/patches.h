// Kept patches of images: cut out, put back, or the rest covered. Included by cpu.cpp alone.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "elements.h"
#include "sets.h"
#include "stream.h"

namespace {

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
