// Which tokens are kept: drawing them, checking them, inverting them; and how work is shared out. Included by cpu.cpp alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "arrays.h"
#include "pages.h"
#include "parallel.h"
#include "simd.h"

namespace {

namespace nb = nanobind;
using vtk::Array;

constexpr int64_t kGrainBytes = 1 << 20;  // less is not worth waking a thread
constexpr int kChunks = 4;                // ranges a thread, so that a thread that was held up does not hold up the rest
constexpr int64_t kKeyBytes = 64;         // drawing and ranking a key takes as long as moving so many bytes

int64_t grain(int64_t bytes_an_item) { return std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(1, bytes_an_item)); }

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

}  // namespace
