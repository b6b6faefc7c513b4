// One function, several instruction sets, chosen when the module is loaded.
//
//     VTK_INLINE void rows(const float *x, ...) { ... }        // the loop, a template if need be, written once
//     VTK_SIMD static void rows_float(Job &job, int64_t begin, int64_t end) { rows<float>(job, begin, end); }
//
// VTK_SIMD goes on a plain function (no template, no lambda inside that is not inlined): the compiler makes one copy for
// AVX-512, one for AVX2 with FMA, one for the rest, and the loader picks. What it calls must be VTK_INLINE, so that it is
// compiled anew inside each copy. Threads go outside: `parallel_for` calls the VTK_SIMD function for each range.
#pragma once

#define VTK_INLINE inline __attribute__((always_inline))

#if defined(VTK_HAS_TARGET_CLONES) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define VTK_SIMD __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VTK_SIMD
#endif

#if defined(__clang__)
#define VTK_COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define VTK_COMPILER "gcc " __VERSION__
#else
#define VTK_COMPILER "C++"
#endif

namespace vtk {

inline const char *instruction_set() {
#ifdef VTK_HAS_TARGET_CLONES
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd"))
        return "x86-64-v4 (AVX-512)";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "x86-64-v3 (AVX2, FMA)";
    return "x86-64";
#else
    return "the compiler's default";
#endif
}

}  // namespace vtk
