// The element types of a tensor, and how each becomes the number that is computed with.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

namespace vtk {

struct bfloat16 {
    uint16_t bits;
};

struct float16 {
    uint16_t bits;
};

VTK_INLINE float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

VTK_INLINE uint32_t as_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

// What a sum of T is kept in: double for double, float for the rest.
template <class T>
struct accumulator {
    using type = float;
};
template <>
struct accumulator<double> {
    using type = double;
};
template <class T>
using accumulator_t = typename accumulator<T>::type;

VTK_INLINE double load(double value) { return value; }
VTK_INLINE float load(float value) { return value; }
VTK_INLINE float load(bfloat16 value) { return as_float(static_cast<uint32_t>(value.bits) << 16); }
// Half precision in integer arithmetic without branches: GCC makes vectors of it, and not of its _Float16.
VTK_INLINE float load(float16 value) {
    const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16, magnitude = static_cast<uint32_t>(value.bits & 0x7fffu) << 13;
    const float small = as_float(magnitude + (113u << 23)) - 0x1p-14f;
    const uint32_t normal = magnitude + (112u << 23), special = magnitude + (224u << 23);
    const uint32_t exponent = magnitude >> 23;
    return as_float(sign | (exponent == 0 ? as_bits(small) : exponent == 31 ? special : normal));
}

// Rounds to nearest, ties to even, as torch does.
VTK_INLINE void store(double &place, double value) { place = value; }
VTK_INLINE void store(float &place, float value) { place = value; }
VTK_INLINE void store(bfloat16 &place, float value) {
    const uint32_t bits = as_bits(value);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    place.bits = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}
VTK_INLINE void store(float16 &place, float value) {
    const uint32_t bits = as_bits(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    const uint32_t small = as_bits(as_float(magnitude) + 0.5f) - as_bits(0.5f);  // subnormal: the addition rounds at 2**-24
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    const uint32_t finite = magnitude < 0x38800000u ? small : normal;
    const uint32_t half = magnitude > 0x7f800000u ? 0x7e00u : magnitude >= 0x477ff000u ? 0x7c00u : finite;
    place.bits = static_cast<uint16_t>(sign | half);
}

}  // namespace vtk
