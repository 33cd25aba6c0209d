// Products of weights and tokens.
//
// Weights lie in panels of 16 output rows: a vector's lane is one row's next 4 bytes (1 float, 2 bfloat16 or 4 int8).
// A product takes 4 bytes of a token, repeats them in every lane and adds 16 dot products at once; 8 such steps are a
// group: 8, 16 or 32 inputs. INT8 and INT4 weights meet tokens quantized to int8 on the fly, with one scale for 128
// inputs: integers are multiplied faster than floats.

#include "vectors.h"

enum Kind : int64_t { FLOAT32, BFLOAT16, INT8, INT4 };
#ifdef __AVX512F__
constexpr int MOST = 16;  // tokens in the largest tile: their sums fill the registers
#else
constexpr int MOST = 4;
#endif
constexpr int BLOCK = 4;  // groups that share one scale of a token

struct Matrix {
    int64_t kind, rows, columns, zeros;  // zeros: 1 when each group has one
    const uint8_t* codes;                // (panels, groups, 8 vectors); INT4: 4, codes i and i + 4 in one
    const Halves* affine;                // INT4: scales, and -zeros / 8 if any, (panels, groups, 1 or 2)
    const Floats *scales, *bias;         // of each row, or null
};
static int64_t width_of(const Matrix& w) { return w.kind == FLOAT32 ? 8 : w.kind == BFLOAT16 ? 16 : 32; }  // of a group
static int64_t groups_of(const Matrix& w) { return (w.columns + width_of(w) - 1) / width_of(w); }
static int64_t panels_of(const Matrix& w) { return (w.rows + 15) / 16; }

// Tokens in the order in which tile reads them.
struct Rows {
    uint8_t* data;  // (tokens / 16, groups, 16 tokens, 32 bytes)
    float* scale;   // (tokens / 16, groups, 16 tokens): of block b, at group b
    int32_t* zero;  // what unsigned codes have too much of: -8 Σ x of a group (INT4), -128 Σ x of block b (INT8)
};

// Write token t, x (columns), for products with w.
static void pack(const Matrix& w, const float* x, const Rows& to, int64_t t) {
    const int64_t groups = groups_of(w), width = width_of(w), base = t / 16 * groups * 16 + t % 16;
    float tail[32] = {};  // the last group, with zeros behind it
    memcpy(tail, x + (groups - 1) * width, (w.columns - (groups - 1) * width) * 4);
    auto from = [&](int64_t g) { return g == groups - 1 ? tail : x + g * width; };
    for (int64_t b = 0; b * BLOCK < groups; b++) {
        const int64_t end = std::min(groups, (b + 1) * BLOCK);
        if (w.kind == FLOAT32 || w.kind == BFLOAT16) {
            for (int64_t g = b * BLOCK; g < end; g++) {
                uint8_t* at = to.data + (base + g * 16) * 32;
                const Halves half = w.kind == BFLOAT16 ? narrow(load(from(g))) : Halves{};
                memcpy(at, w.kind == BFLOAT16 ? (const void*)&half : from(g), 32);
            }
            continue;
        }
        Floats most = {};
        for (int64_t g = b * BLOCK; g < end; g++)
            for (int i = 0; i < 32; i += 16) most = largest(most, largest(load(from(g) + i), -load(from(g) + i)));
        float top = 1e-20f;
        UNROLL for (int i = 0; i < 16; i++) top = std::max(top, most[i]);
        int32_t all = 0;
        for (int64_t g = b * BLOCK; g < end; g++) {
            Ints sum = {};
            for (int i = 0; i < 32; i += 16) {
                const Ints q = (Ints)(load(from(g) + i) * (127 / top) + 12582912.f) - 0x4b400000;  // rounded, as in exp2
                const Bytes bytes = __builtin_convertvector(q, Bytes);
                memcpy(to.data + (base + g * 16) * 32 + i, &bytes, 16);
                sum += q;
            }
            const int32_t x_sum = total(sum);
            all += x_sum;
            if (w.kind == INT4) to.zero[base + g * 16] = -8 * x_sum;
        }
        if (w.kind == INT8) to.zero[base + b * 16] = -128 * all;
        to.scale[base + b * 16] = top / 127;
    }
}

// The 8 vectors of one group of a panel.
template <Kind K> static inline void unpack(const uint8_t* codes, int64_t group, Ints* to) {
    const Ints* from = (const Ints*)codes + group * (K == INT4 ? 4 : 8);
    UNROLL for (int i = 0; i < (K == INT4 ? 4 : 8); i++) {
        to[i] = K == INT4 ? from[i] & 0x0f0f0f0f : from[i];
        if (K == INT4) to[i + 4] = (from[i] >> 4) & 0x0f0f0f0f;
    }
}

// out[t] = the 16 dot products of a panel with token first + t, for M tokens.
template <Kind K, int M>
__attribute__((noinline)) static void tile(const Matrix& w, int64_t panel, const Rows& x, int64_t first, Floats* out) {
    const int64_t groups = groups_of(w), base = first / 16 * groups * 16 + first % 16;
    const int64_t step = K == INT8 || K == INT4 ? BLOCK : groups;
    constexpr int SOME = M < 4 ? M : 4;  // sums of integers that INT4 keeps beside those of floats
    for (int64_t begin = 0, block = base; begin < groups; begin += step, block += 16) {
        Floats sum[M];
        Ints whole[M];
        UNROLL for (int t = 0; t < M; t++) sum[t] = Floats{};
        if (K == INT8) UNROLL for (int t = 0; t < M; t++) whole[t] = repeat(x.zero + block + t);
        for (int64_t g = begin; g < std::min(groups, begin + step); g++) {
            const uint8_t* a = x.data + (base + g * 16) * 32;
            Ints r[8];
            unpack<K>(w.codes, panel * groups + g, r);
            if (K == INT4) {
                const Halves* affine = w.affine + (panel * groups + g) * (1 + w.zeros);
                const int32_t* zero = x.zero + base + g * 16;
                const Floats scale = widen(affine[0]);
                UNROLL for (int f = 0; f < M; f += SOME) {
                    UNROLL for (int t = f; t < f + SOME; t++) whole[t] = repeat(zero + t);
                    UNROLL for (int i = 0; i < 8; i++)
                        UNROLL for (int t = f; t < f + SOME; t++)
                            whole[t] = dot4(whole[t], r[i], repeat(a + t * 32 + i * 4));
                    UNROLL for (int t = f; t < f + SOME; t++)
                        sum[t] = fma(__builtin_convertvector(whole[t], Floats), scale, sum[t]);
                }
                if (w.zeros)
                    UNROLL for (int t = 0; t < M; t++) sum[t] = fma(widen(affine[1]), repeat((float)zero[t]), sum[t]);
            } else
                UNROLL for (int i = 0; i < 8; i++)
                    UNROLL for (int t = 0; t < M; t++) {
                        const Ints b = repeat(a + t * 32 + i * 4);
                        if (K == FLOAT32) sum[t] = fma((Floats)r[i], (Floats)b, sum[t]);
                        if (K == BFLOAT16) sum[t] = dot2(sum[t], r[i], b);
                        if (K == INT8) whole[t] = dot4(whole[t], r[i], b);
                    }
        }
        UNROLL for (int t = 0; t < M; t++) {
            const Floats part = K == INT8 ? __builtin_convertvector(whole[t], Floats) : sum[t];
            const bool scaled = K == INT8 || K == INT4;
            out[t] = scaled ? fma(part, repeat(x.scale[block + t]), begin ? out[t] : Floats{}) : part;
        }
    }
}

template <Kind K>
static void tiles(const Matrix& w, int64_t panel, const Rows& x, int64_t first, int64_t count, Floats* out) {
    for (int64_t end = first + count; first < end;) {  // one tile that is not full costs less than several small ones
        const int64_t left = end - first;
        const int64_t size = left > 12 ? MOST : left > 6 ? std::min(MOST, 8) : left > 2 ? 4 : left;
        const auto method = size == 1   ? tile<K, 1>
                            : size == 2 ? tile<K, 2>
                            : size == 4 ? tile<K, 4>
                            : size == 8 ? tile<K, MOST / 2>
                                        : tile<K, MOST>;
        method(w, panel, x, first, out);
        first += size, out += size;
    }
}

// out[t]: rows 16 panel … 16 panel + 15 of the product of w and token first + t. first is a multiple of 16, and out has
// room for 15 more.
static void product(const Matrix& w, int64_t panel, const Rows& x, int64_t first, int64_t count, Floats* out) {
    const auto method = w.kind == FLOAT32    ? tiles<FLOAT32>
                        : w.kind == BFLOAT16 ? tiles<BFLOAT16>
                        : w.kind == INT8     ? tiles<INT8>
                                             : tiles<INT4>;
    method(w, panel, x, first, count, out);
    if (w.scales)
        for (int64_t t = 0; t < count; t++) out[t] *= w.scales[panel];
    if (w.bias)
        for (int64_t t = 0; t < count; t++) out[t] += w.bias[panel];
}

// Row r of w, the embedding of a token, up to the end of its last group.
static void lookup(const Matrix& w, int64_t r, float* to) {
    const int64_t groups = groups_of(w), panel = r / 16, lane = r % 16;
    for (int64_t g = panel * groups; g < (panel + 1) * groups; g++) {
        Ints v[8];
        w.kind == INT4 ? unpack<INT4>(w.codes, g, v) : unpack<INT8>(w.codes, g, v);
        const Halves* affine = w.affine + g * (1 + w.zeros);
        const float scale = w.kind == INT4 ? widen(affine[0])[lane] : 0, zero = w.zeros ? 8 * widen(affine[1])[lane] : 0;
        for (int i = 0; i < 8; i++) {
            const int32_t word = v[i][lane], halves[2] = {word << 16, word & UPPER};
            if (w.kind == FLOAT32) memcpy(to, &word, 4), to += 1;
            if (w.kind == BFLOAT16) memcpy(to, halves, 8), to += 2;
            for (int b = 0; b < 32 && w.kind == INT8; b += 8)
                *to++ = (float)((word >> b & 255) - 128) * w.scales[panel][lane];
            for (int b = 0; b < 32 && w.kind == INT4; b += 8)
                *to++ = (float)((word >> b & 255) - 8) * scale - zero;
        }
    }
}
