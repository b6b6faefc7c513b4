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
VTK_INLINE float load(float16 value) {
#ifdef __FLT16_MAX__
    _Float16 half;
    std::memcpy(&half, &value.bits, 2);
    return static_cast<float>(half);
#else
    const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16, exponent = value.bits >> 10 & 31u, mantissa = value.bits & 1023u;
    if (exponent == 31) return as_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return as_float(sign | (exponent + 112u) << 23 | mantissa << 13);
    const float small = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -small : small;
#endif
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
#ifdef __FLT16_MAX__
    const _Float16 half = static_cast<_Float16>(value);
    std::memcpy(&place.bits, &half, 2);
#else
    const uint32_t bits = as_bits(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u)
        half = 0x7e00u;
    else if (magnitude >= 0x477ff000u)
        half = 0x7c00u;
    else if (magnitude < 0x38800000u)  // subnormal: the addition rounds at 2**-24
        half = as_bits(as_float(magnitude) + 0.5f) - as_bits(0.5f);
    else
        half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    place.bits = static_cast<uint16_t>(sign | half);
#endif
}

// Vectors of 32 bytes, for loops that the compiler does not keep in registers by itself.
template <class A>
struct vector_of;
template <>
struct vector_of<float> {
    typedef float type __attribute__((vector_size(32)));
};
template <>
struct vector_of<double> {
    typedef double type __attribute__((vector_size(32)));
};
template <class A>
using Vector = typename vector_of<A>::type;
template <class A>
constexpr int lanes = 32 / sizeof(A);

template <class A>
VTK_INLINE Vector<A> load_vector(const A *place) {
    Vector<A> vector;
    std::memcpy(&vector, place, sizeof vector);
    return vector;
}
VTK_INLINE Vector<float> load_vector(const bfloat16 *place) {
    typedef uint16_t narrow __attribute__((vector_size(16)));
    typedef uint32_t wide __attribute__((vector_size(32)));
    narrow bits;
    std::memcpy(&bits, place, sizeof bits);
    return (Vector<float>)(__builtin_convertvector(bits, wide) << 16);
}
VTK_INLINE Vector<float> load_vector(const float16 *place) {
    Vector<float> vector;
    for (int i = 0; i < lanes<float>; ++i) vector[i] = load(place[i]);
    return vector;
}

template <class A>
VTK_INLINE void store_vector(A *place, Vector<A> vector) {
    std::memcpy(place, &vector, sizeof vector);
}

VTK_INLINE float total(Vector<float> v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }
VTK_INLINE double total(Vector<double> v) { return (v[0] + v[2]) + (v[1] + v[3]); }

}  // namespace vtk
