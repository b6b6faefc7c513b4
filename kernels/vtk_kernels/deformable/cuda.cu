// Multi-scale deformable attention in CUDA C++, in the notation of reference.py. Compiled by NVRTC when it is first used, for
// one element type, one number of channels and one form of the queries, given as macros:
//   ELEMENT      float, double, bfloat16 or float16: the type of value, grad and out
//   SUM          float or double: locations, softmax and sums
//   CHANNELS     D: 8, 16, 32, 64 or 128
//   COORDINATES  0: locations and weights are given; 2 or 4: points or boxes, offsets and logits
//   EXACT        grad_value is 64-bit fixed point, whose sums do not depend on their order
// A group of LANES threads sums one row (b, q, m); each thread has PART channels. A block first plans all samples of its rows
// in shared memory (softmax, cell, fractions), one thread a sample, then sums.
// It includes nothing, so that NVRTC needs no toolkit.
constexpr int LANES = CHANNELS < 32 ? CHANNELS : 32, PART = CHANNELS / LANES, MOST_LEVELS = 8;

struct bfloat16 {
    unsigned short bits;
};
struct float16 {
    unsigned short bits;
};

struct Levels {
    int height[MOST_LEVELS], width[MOST_LEVELS], start[MOST_LEVELS];
};

struct Plan {
    SUM a, c, weight;
    int row, col;  // col is below -1 where the sample is not counted
};

constexpr int SKIPPED = -2;

__device__ __forceinline__ SUM load(float x) { return x; }
__device__ __forceinline__ SUM load(double x) { return x; }
__device__ __forceinline__ SUM load(bfloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
__device__ __forceinline__ SUM load(float16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
__device__ __forceinline__ void store(float *place, SUM x) { *place = x; }
__device__ __forceinline__ void store(double *place, SUM x) { *place = x; }
__device__ __forceinline__ void store(bfloat16 *place, SUM x) {  // to nearest, ties to even
    const unsigned bits = __float_as_uint(x);
    const bool number = (bits & 0x7fffffffu) <= 0x7f800000u;
    place->bits = static_cast<unsigned short>(number ? (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16 : 0x7fc0u);
}
__device__ __forceinline__ void store(float16 *place, SUM x) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(place->bits) : "f"(static_cast<float>(x)));
}

// The levels of a block, from H * 2**32 + W of each.
#define SHAPES long long s0, long long s1, long long s2, long long s3, long long s4, long long s5, long long s6, long long s7
__device__ __forceinline__ void unpack(Levels &levels, SHAPES) {
    if (threadIdx.x == 0) {
        const long long shapes[MOST_LEVELS] = {s0, s1, s2, s3, s4, s5, s6, s7};
        int start = 0;
        for (int level = 0; level < MOST_LEVELS; ++level) {
            levels.height[level] = static_cast<int>(shapes[level] >> 32);
            levels.width[level] = static_cast<int>(shapes[level]);
            levels.start[level] = start;
            start += levels.height[level] * levels.width[level];
        }
    }
    __syncthreads();
}

// Origin and step of the pixels along x (0) or y (1): pixel = origin + place * step.
__device__ __forceinline__ void axis(const SUM *reference, long long bq, int level, int side, int xy, int L, int P, SUM &origin,
                                     SUM &step) {
    if (COORDINATES == 0) {
        origin = SUM(-0.5);
        step = side;
        return;
    }
    const SUM *point = reference + (bq * L + level) * COORDINATES;
    origin = point[xy] * side - SUM(0.5);
    step = COORDINATES == 4 ? point[2 + xy] * side * (SUM(0.5) / P) : SUM(1);
}

// Plans the samples of the block's rows; `plans` is (rows of the block, L*P).
__device__ void plan_block(const SUM *places, const SUM *scores, const SUM *reference, const Levels &levels, long long first,
                           long long rows, int here, int M, int L, int P, Plan *plans) {
    const int points = L * P;
    for (int i = threadIdx.x; i < here * points; i += blockDim.x) {
        const int point = i % points, level = point / P;
        const long long row = first + i / points, bq = row / M, at = row * points + point;
        SUM origin_x, step_x, origin_y, step_y;
        const int height = levels.height[level], width = levels.width[level];
        axis(reference, bq, level, width, 0, L, P, origin_x, step_x);
        axis(reference, bq, level, height, 1, L, P, origin_y, step_y);
        const SUM u = origin_x + places[2 * at] * step_x, v = origin_y + places[2 * at + 1] * step_y;
        const bool counted = u > -1 && u < width && v > -1 && v < height;  // false for NaN
        const SUM left = floor(u), top = floor(v);
        Plan plan = {counted ? u - left : 0, counted ? v - top : 0, scores[at], 0, SKIPPED};
        if (counted) {
            plan.row = static_cast<int>(top);
            plan.col = static_cast<int>(left);
        }
        plans[i] = plan;
    }
    __syncthreads();
    if (COORDINATES == 0) return;
    for (int i = threadIdx.x; i < here; i += blockDim.x) {  // the softmax of a row
        Plan *row = plans + i * points;
        SUM most = row[0].weight, sum = 0;
        for (int point = 1; point < points; ++point) most = row[point].weight > most ? row[point].weight : most;
        for (int point = 0; point < points; ++point) sum += row[point].weight = exp(row[point].weight - most);
        for (int point = 0; point < points; ++point) row[point].weight /= sum;
    }
    __syncthreads();
}

__device__ __forceinline__ bool there(int row, int col, int height, int width) {
    return row >= 0 && row < height && col >= 0 && col < width;
}

extern "C" __global__ void forward_kernel(const ELEMENT *value, const SUM *places, const SUM *scores, const SUM *reference,
                                          ELEMENT *out, SHAPES, long long rows, int S, int Q, int M, int L, int P) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ Levels levels;
    Plan *plans = reinterpret_cast<Plan *>(memory);
    unpack(levels, s0, s1, s2, s3, s4, s5, s6, s7);
    const int group = blockDim.x / LANES, lane = threadIdx.x % LANES, mine = threadIdx.x / LANES, points = L * P;
    const long long first = static_cast<long long>(blockIdx.x) * group;
    const int here = rows - first < group ? static_cast<int>(rows - first) : group;
    plan_block(places, scores, reference, levels, first, rows, here, M, L, P, plans);
    if (mine >= here) return;
    const long long row = first + mine, b = row / M / Q;
    const int m = static_cast<int>(row % M);
    SUM sum[PART] = {};
    for (int level = 0; level < L; ++level) {
        const int height = levels.height[level], width = levels.width[level];
        const ELEMENT *map = value + ((b * S + levels.start[level]) * M + m) * CHANNELS + lane * PART;
        for (int p = 0; p < P; ++p) {
            const Plan plan = plans[mine * points + level * P + p];
            if (plan.col == SKIPPED) continue;
            for (int corner = 0; corner < 4; ++corner) {
                const int i = plan.row + corner / 2, j = plan.col + corner % 2;
                if (!there(i, j, height, width)) continue;
                const SUM share = plan.weight * (corner / 2 ? plan.c : 1 - plan.c) * (corner % 2 ? plan.a : 1 - plan.a);
                const ELEMENT *cell = map + (static_cast<long long>(i) * width + j) * M * CHANNELS;
                for (int d = 0; d < PART; ++d) sum[d] += share * load(cell[d]);
            }
        }
    }
    for (int d = 0; d < PART; ++d) store(out + row * CHANNELS + lane * PART + d, sum[d]);
}

// The sum over the LANES threads of a group, in all of them.
__device__ __forceinline__ SUM over_lanes(SUM x, unsigned group) {
    for (int step = LANES / 2; step; step /= 2) x += __shfl_xor_sync(group, x, step, LANES);
    return x;
}

#if EXACT
using Total = unsigned long long;  // two's complement: unsigned sums wrap as signed ones do
__device__ __forceinline__ void give(Total *place, SUM change, double scale) {
    atomicAdd(place, static_cast<Total>(static_cast<long long>(static_cast<double>(change) * scale)));
}
#else
using Total = SUM;
__device__ __forceinline__ void give(Total *place, SUM change, double) { atomicAdd(place, change); }
#endif

extern "C" __global__ void backward_kernel(const ELEMENT *grad, const ELEMENT *value, const SUM *places, const SUM *scores,
                                           const SUM *reference, Total *grad_value, SUM *grad_places, SUM *grad_scores,
                                           SUM *by_head, const double *scale_place, SHAPES, long long rows, int S, int Q, int M,
                                           int L, int P) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ Levels levels;
    Plan *plans = reinterpret_cast<Plan *>(memory);
    unpack(levels, s0, s1, s2, s3, s4, s5, s6, s7);
    const int group = blockDim.x / LANES, lane = threadIdx.x % LANES, mine = threadIdx.x / LANES, points = L * P;
    const long long first = static_cast<long long>(blockIdx.x) * group;
    const int here = rows - first < group ? static_cast<int>(rows - first) : group;
    plan_block(places, scores, reference, levels, first, rows, here, M, L, P, plans);
    if (mine >= here) return;
    const unsigned lanes = (LANES == 32 ? 0xffffffffu : (1u << LANES % 32) - 1) << threadIdx.x % 32 / LANES * LANES;
    const double scale = EXACT ? *scale_place : 1.0;
    const long long row = first + mine, bq = row / M, b = bq / Q;
    const int m = static_cast<int>(row % M);
    SUM g[PART];
    for (int d = 0; d < PART; ++d) g[d] = load(grad[row * CHANNELS + lane * PART + d]);
    SUM total = 0;  // of weight * its derivative, for the softmax
    for (int level = 0; level < L; ++level) {
        const int height = levels.height[level], width = levels.width[level];
        const long long map = ((b * S + levels.start[level]) * M + m) * CHANNELS + lane * PART;
        SUM origin_x, step_x, origin_y, step_y, moved_u = 0, moved_v = 0, grown_u = 0, grown_v = 0;
        axis(reference, bq, level, width, 0, L, P, origin_x, step_x);
        axis(reference, bq, level, height, 1, L, P, origin_y, step_y);
        for (int p = 0; p < P; ++p) {
            const Plan plan = plans[mine * points + level * P + p];
            const long long at = row * points + level * P + p;
            SUM dw = 0, du = 0, dv = 0;
            const bool counted = plan.col != SKIPPED;  // the same in all lanes of the group
            if (counted) {
                for (int corner = 0; corner < 4; ++corner) {
                    const int i = plan.row + corner / 2, j = plan.col + corner % 2;
                    if (!there(i, j, height, width)) continue;
                    const SUM along_v = corner / 2 ? plan.c : 1 - plan.c, along_u = corner % 2 ? plan.a : 1 - plan.a;
                    const long long cell = map + (static_cast<long long>(i) * width + j) * M * CHANNELS;
                    SUM dot = 0;
                    for (int d = 0; d < PART; ++d) {
                        dot += g[d] * load(value[cell + d]);
                        give(grad_value + cell + d, plan.weight * along_v * along_u * g[d], scale);
                    }
                    dw += along_v * along_u * dot;
                    du += corner % 2 ? along_v * dot : -along_v * dot;
                    dv += corner / 2 ? along_u * dot : -along_u * dot;
                }
                dw = over_lanes(dw, lanes);
                du = plan.weight * over_lanes(du, lanes);
                dv = plan.weight * over_lanes(dv, lanes);
                moved_u += du;
                moved_v += dv;
                grown_u += du * places[2 * at];
                grown_v += dv * places[2 * at + 1];
                total += plan.weight * dw;
            }
            if (lane) continue;
            grad_places[2 * at] = counted ? du * step_x : SUM(0);
            grad_places[2 * at + 1] = counted ? dv * step_y : SUM(0);
            grad_scores[at] = dw;
        }
        if (COORDINATES == 0 || lane) continue;
        SUM *target = by_head + (row * L + level) * COORDINATES;
        target[0] = moved_u * width;
        target[1] = moved_v * height;
        if (COORDINATES == 4) {
            target[2] = grown_u * width * (SUM(0.5) / P);
            target[3] = grown_v * height * (SUM(0.5) / P);
        }
    }
    if (COORDINATES == 0 || lane) return;
    for (int point = 0; point < points; ++point) {
        SUM *place = grad_scores + row * points + point;
        *place = plans[mine * points + point].weight * (*place - total);
    }
}
