// Vectors of 32 bytes, for loops whose sums the compiler does not keep in registers by itself.
#pragma once

#include "elements.h"

namespace vtk {

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
