// What a kernel takes from Python: contiguous CPU tensors, without a copy.
//
//     void forward(const vtk::Array &x, vtk::Array &out, int threads) {
//         nb::gil_scoped_release release;
//         vtk::with_element(x, "x", [&](auto element) { using T = decltype(element); run(vtk::data<T>(x), ...); });
//     }
// Pass `tensor.detach()`: a tensor that requires grad is not exported. A non-contiguous tensor is refused, never copied.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>

#include "elements.h"

namespace vtk {

namespace nb = nanobind;

using Array = nb::ndarray<nb::c_contig, nb::device::cpu>;

template <class T>
T *data(const Array &array) {
    return static_cast<T *>(const_cast<void *>(static_cast<const void *>(array.data())));
}

inline bool is_float(const nb::dlpack::dtype &type, int bits) {
    return type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) && type.bits == bits;
}

// Calls body(T{}) with the T that `array` holds: double, float, float16 or bfloat16.
template <class Body>
void with_element(const Array &array, const char *name, const Body &body) {
    const nb::dlpack::dtype type = array.dtype();
    if (is_float(type, 32))
        body(float{});
    else if (is_float(type, 64))
        body(double{});
    else if (is_float(type, 16))
        body(float16{});
    else if (type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Bfloat) && type.bits == 16)
        body(bfloat16{});
    else
        throw std::invalid_argument(std::string(name) + ": expected float64, float32, float16 or bfloat16");
}

}  // namespace vtk
