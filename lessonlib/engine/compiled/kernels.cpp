// One forward pass of the model, for the CPU it is compiled on. What it computes is model.py's forward, step by step;
// what it decides is how: in which order numbers lie in memory, so that vector instructions find them side by side.
//
// Weights lie in panels of 16 output rows: one vector register holds 16 lanes, each lane one row's next 4 bytes
// (1 float, 2 bfloat16 or 4 int8). A product takes 4 bytes of a token, repeats them in every lane and adds 16 dot
// products at once. 8 such steps are a group: 8, 16 or 32 inputs. INT8 and INT4 weights meet tokens quantized to int8
// on the fly, with one scale for 128 inputs (as in Dettmers et al. 2022, arXiv:2208.07339 §2.1, and llama.cpp).
//
// Vectors are written with the extension of GCC and Clang, which works on every CPU. Only the two instructions made
// for such products are asked for by name, where there are any.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

#define UNROLL _Pragma("GCC unroll 16")

typedef float Floats __attribute__((vector_size(64), may_alias));
typedef int32_t Ints __attribute__((vector_size(64), may_alias));
typedef int8_t Bytes __attribute__((vector_size(16), may_alias));
typedef uint16_t Halves __attribute__((vector_size(32), may_alias));

#define PICK(first) first, first + 2, first + 4, first + 6, first + 8, first + 10, first + 12, first + 14, first + 16, \
    first + 18, first + 20, first + 22, first + 24, first + 26, first + 28, first + 30
#ifdef __clang__
#define EVENS(a, b) __builtin_shufflevector(a, b, PICK(0))
#define ODDS(a, b) __builtin_shufflevector(a, b, PICK(1))
#else
#define EVENS(a, b) __builtin_shuffle(a, b, Ints{PICK(0)})
#define ODDS(a, b) __builtin_shuffle(a, b, Ints{PICK(1)})
#endif
const Ints COUNT = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

enum Kind : int64_t { FLOAT32, BFLOAT16, INT8, INT4 };
#ifdef __AVX512F__
constexpr int MOST = 16;           // tokens in the largest tile: their sums fill the registers
#else
constexpr int MOST = 4;
#endif
constexpr int BLOCK = 4;           // groups that share one scale of a token
constexpr int TOKENS = 64;         // tokens that stay in the cache while panels of weights stream past
constexpr int ALONE = 2;           // tokens that every thread prepares for itself
constexpr int FEW = 8;             // queries that attend_few takes
constexpr int KEYS = 32;           // keys that attention takes at a time
constexpr int QUERIES = 4;         // vectors of 16 queries that share them
constexpr int HEAD = 256 + 16;     // largest head_dim, and some more so that rows do not compete for one cache line
constexpr float LOWEST = -1e30f;   // of a key that is not to be seen
constexpr float LOG2E = 1.44269504f;

// ---------------------------------------------------------------- what Python hands over (see pack.py)

struct Matrix {
    int64_t kind, rows, columns, zeros;  // zeros: 1 when each group has one
    const uint8_t* codes;                // (panels, groups, 8 registers of 64 bytes); INT4: 4, two codes to a byte
    const Halves* affine;                // INT4: bfloat16 scales, and -zeros / 8 if any, (panels, groups, 1 or 2, 16)
    const Floats *scales, *bias;         // of each row, or null
};
struct Layer {
    Matrix qkv, out, gate_up, down;  // gate_up: a panel of gate, its panel of up, the next of gate, …
    const float *norm, *mlp_norm, *q_norm, *k_norm;
    int64_t window;
};
struct Model {
    int64_t layers, hidden, ffn, heads, kv_heads, head_dim;
    double eps;
    const Layer* layer;
    Matrix embedding, head;
    const float *norm, *cos, *sin;  // cos, sin: (positions, head_dim / 2)
};
struct Cache {  // where the key of a position is: keys + layer, block, slot and head, times these numbers of elements
    int64_t bfloat16, block_size, layer, block, slot, head;
    uint8_t *keys, *values;
};
struct Pass {
    int64_t tokens, spans, wanted, threads;
    const int64_t *ids, *starts, *counts, *tables, *width;  // width: of the tables, laid end to end
    const int64_t* at;                                      // the tokens whose logits are wanted
    float* logits;                                          // (wanted, vocabulary)
};

// ---------------------------------------------------------------- vectors

static inline Ints repeat(const void* p) {
    int32_t x;
    memcpy(&x, p, 4);
    return x - Ints{};
}
static inline Floats repeat(float x) { return (Floats)repeat(&x); }
static inline Floats load(const float* p) {
    Floats v;
    memcpy(&v, p, 64);
    return v;
}
static inline void store(float* p, Floats v, int64_t count = 16) {
    memcpy(p, &v, count < 16 ? 4 * count : 64);
}
static inline Floats widen(Halves h) {
#ifdef __AVX512F__  // GCC takes two steps otherwise
    return (Floats)((Ints)_mm512_cvtepu16_epi32((__m256i)h) << 16);
#else
    return (Floats)(__builtin_convertvector(h, Ints) << 16);
#endif
}
static inline Floats load_as_floats(const float* p) { return load(p); }
static inline Floats load_as_floats(const uint16_t* p) {
    Halves h;
    memcpy(&h, p, 32);
    return widen(h);
}
static inline Floats largest(Floats a, Floats b) { return a > b ? a : b; }
static inline Ints round_half(Floats f) {  // to bfloat16, ties to even, in the upper 16 bits
    Ints x = (Ints)f;
    return (x + 0x7fff + ((x >> 16) & 1)) & (int32_t)0xffff0000;
}
static inline Halves narrow(Floats f) { return __builtin_convertvector(round_half(f) >> 16, Halves); }
template <class V> static inline auto total(V v) {
    auto sum = v[0] - v[0];
    UNROLL for (int i = 0; i < 16; i++) sum += v[i];
    return sum;
}
static inline Floats exp2(Floats x) {  // relative error about 2e-7, for x up to 127
    x = largest(x, repeat(-126.f));
    const Floats shifted = x + 12582912.f;  // 1.5 * 2^23: the integer part is now in the lowest bits
    const Floats f = x - (shifted - 12582912.f);
    Floats p = f * 1.54036684e-4f + 1.33339043e-3f;
    p = p * f + 9.61812910e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.f;
    return (Floats)((Ints)p + ((Ints)shifted << 23));
}

// sum + Σ w x of the 2 bfloat16 in each lane
static inline Floats dot2(Floats sum, Ints w, Ints x) {
#ifdef __AVX512BF16__
    return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
#else
    const int32_t upper = (int32_t)0xffff0000;
    return sum + (Floats)(w << 16) * (Floats)(x << 16) + (Floats)(w & upper) * (Floats)(x & upper);
#endif
}
// sum + Σ w x of the 4 bytes in each lane, w unsigned, x signed
static inline Ints dot4(Ints sum, Ints w, Ints x) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
#elif defined(__AVX2__)
    __m256i s[2], a[2], b[2];
    memcpy(s, &sum, 64), memcpy(a, &w, 64), memcpy(b, &x, 64);
    const __m256i low = _mm256_set1_epi16(255);
    UNROLL for (int i = 0; i < 2; i++) {  // even bytes, then odd ones, as 16-bit numbers
        __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(b[i], 8), 8), odd = _mm256_srai_epi16(b[i], 8);
        s[i] = _mm256_add_epi32(s[i], _mm256_madd_epi16(_mm256_and_si256(a[i], low), even));
        s[i] = _mm256_add_epi32(s[i], _mm256_madd_epi16(_mm256_srli_epi16(a[i], 8), odd));
    }
    memcpy(&sum, s, 64);
    return sum;
#else
    UNROLL for (int i = 0; i < 4; i++) sum += ((w >> 8 * i) & 255) * (x << (24 - 8 * i) >> 24);
    return sum;
#endif
}

// ---------------------------------------------------------------- products

static int64_t width_of(const Matrix& w) { return w.kind == FLOAT32 ? 8 : w.kind == BFLOAT16 ? 16 : 32; }  // of a group
static int64_t groups_of(const Matrix& w) { return (w.columns + width_of(w) - 1) / width_of(w); }

// Tokens in the order in which tile reads them: (tokens / 16, groups, 16 tokens, 32 bytes).
struct Rows {
    uint8_t* data;
    float* scale;   // (tokens / 16, groups, 16): of each block; only the first groups are used
    int32_t* zero;  // what the offset of the unsigned codes adds to a sum, negative: of each group (INT4) or block
};

// Write token t, x (columns), for products with w.
static void pack(const Matrix& w, const float* x, const Rows& to, int64_t t) {
    const int64_t groups = groups_of(w), base = t / 16 * groups * 16 + t % 16, per = width_of(w);
    float tail[32] = {};  // the last group, with zeros behind it
    memcpy(tail, x + (groups - 1) * per, (w.columns - (groups - 1) * per) * 4);
    auto at = [&](int64_t g, int64_t i) { return load((g == groups - 1 ? tail : x + g * per) + i); };
    if (w.kind == FLOAT32 || w.kind == BFLOAT16)
        for (int64_t g = 0; g < groups; g++) {
            const Floats v = at(g, 0);
            const Halves h = narrow(v);
            memcpy(to.data + (base + g * 16) * 32, w.kind == FLOAT32 ? (const void*)&v : &h, 32);
        }
    else
        for (int64_t b = 0; b * BLOCK < groups; b++) {
            const int64_t end = std::min(groups, (b + 1) * BLOCK);
            Floats most = {};
            for (int64_t g = b * BLOCK; g < end; g++)
                for (int i = 0; i < 32; i += 16) most = largest(most, largest(at(g, i), -at(g, i)));
            float top = 1e-20f;
            UNROLL for (int i = 0; i < 16; i++) top = std::max(top, most[i]);
            Ints all = {};
            for (int64_t g = b * BLOCK; g < end; g++) {
                Ints sum = {};
                for (int i = 0; i < 32; i += 16) {
                    // Adding 1.5 * 2^23 rounds: the integer is then in the lowest bits.
                    const Ints q = (Ints)(at(g, i) * (127.f / top) + 12582912.f) - 0x4b400000;
                    const Bytes bytes = __builtin_convertvector(q, Bytes);
                    memcpy(to.data + (base + g * 16) * 32 + i, &bytes, 16);
                    sum += q;
                }
                all += sum;
                if (w.kind == INT4) to.zero[base + g * 16] = -8 * total(sum);
            }
            if (w.kind == INT8) to.zero[base + b * 16] = -128 * total(all);
            to.scale[base + b * 16] = top / 127;
        }
}

// The 8 registers of one group of a panel.
template <Kind K> static inline void unpack(const Matrix& w, int64_t group, Ints* to) {
    if (K == INT4) {
        const Ints* from = (const Ints*)(w.codes + group * 256);
        UNROLL for (int i = 0; i < 4; i++) to[i] = from[i] & 0x0f0f0f0f, to[i + 4] = (from[i] >> 4) & 0x0f0f0f0f;
    } else {
        const Ints* from = (const Ints*)(w.codes + group * 512);
        UNROLL for (int i = 0; i < 8; i++) to[i] = from[i];
    }
}

// out[t] = the 16 dot products of a panel with token first + t, for M tokens: as many sums as registers hold.
template <Kind K, int M> __attribute__((noinline)) static void tile(const Matrix& w, int64_t panel, const Rows& x, int64_t first, Floats* out) {
    const int64_t groups = groups_of(w), base = first / 16 * groups * 16 + first % 16;
    const int64_t step = K == INT8 || K == INT4 ? BLOCK : groups;
    constexpr int SOME = M < 4 ? M : 4;
    for (int64_t begin = 0, block = 0; begin < groups; begin += step, block++) {
        const int64_t scale = base + block * 16, end = std::min(groups, begin + step);
        Floats sum[M];
        Ints whole[M];
        UNROLL for (int t = 0; t < M; t++) {
            sum[t] = Floats{};
            if (K == INT8) whole[t] = repeat(x.zero + scale + t);
        }
        for (int64_t g = begin; g < end; g++) {
            Ints r[8];
            unpack<K>(w, panel * groups + g, r);
            const uint8_t* a = x.data + (base + g * 16) * 32;
            if (K == INT4) {
                const Halves* affine = w.affine + (panel * groups + g) * (1 + w.zeros);
                const Floats slope = widen(affine[0]);
                UNROLL for (int f = 0; f < M; f += SOME) {
                    UNROLL for (int t = f; t < f + SOME; t++) whole[t] = repeat(x.zero + base + g * 16 + t);
                    UNROLL for (int i = 0; i < 8; i++)
                        UNROLL for (int t = f; t < f + SOME; t++) whole[t] = dot4(whole[t], r[i], repeat(a + t * 32 + i * 4));
                    UNROLL for (int t = f; t < f + SOME; t++) sum[t] += __builtin_convertvector(whole[t], Floats) * slope;
                }
                if (w.zeros) {
                    const Floats zero = widen(affine[1]);
                    UNROLL for (int t = 0; t < M; t++) sum[t] += zero * (float)x.zero[base + g * 16 + t];
                }
            } else
                UNROLL for (int i = 0; i < 8; i++)
                    UNROLL for (int t = 0; t < M; t++) {
                        const Ints b = repeat(a + t * 32 + i * 4);
                        if (K == FLOAT32) sum[t] += (Floats)r[i] * (Floats)b;
                        if (K == BFLOAT16) sum[t] = dot2(sum[t], r[i], b);
                        if (K == INT8) whole[t] = dot4(whole[t], r[i], b);
                    }
        }
        UNROLL for (int t = 0; t < M; t++) {
            Floats part = K == INT8 ? __builtin_convertvector(whole[t], Floats) : sum[t];
            if (K == INT8 || K == INT4) part *= x.scale[scale + t];
            out[t] = begin ? out[t] + part : part;
        }
    }
}

template <Kind K> static void tiles(const Matrix& w, int64_t panel, const Rows& x, int64_t first, int64_t count, Floats* out) {
    for (int64_t t = 0; t < count;) {  // a full tile costs less than several small ones, even if it is not full
        const int64_t left = count - t;
        const int size = left > 12 ? MOST : left > 6 ? std::min(MOST, 8) : left > 2 ? 4 : left;
        if (size == 1) tile<K, 1>(w, panel, x, first + t, out + t);
        else if (size == 2) tile<K, 2>(w, panel, x, first + t, out + t);
        else if (size == 4) tile<K, 4>(w, panel, x, first + t, out + t);
        else if (size == 8) tile<K, MOST / 2>(w, panel, x, first + t, out + t);
        else tile<K, MOST>(w, panel, x, first + t, out + t);
        t += size;
    }
}

// out[t]: 16 numbers of the product of w and token first + t. first is a multiple of 16; out has room for 16 more.
static void product(const Matrix& w, int64_t panel, const Rows& x, int64_t first, int64_t count, Floats* out) {
    if (w.kind == FLOAT32) tiles<FLOAT32>(w, panel, x, first, count, out);
    else if (w.kind == BFLOAT16) tiles<BFLOAT16>(w, panel, x, first, count, out);
    else if (w.kind == INT8) tiles<INT8>(w, panel, x, first, count, out);
    else tiles<INT4>(w, panel, x, first, count, out);
    if (w.scales)
        for (int64_t t = 0; t < count; t++) out[t] *= w.scales[panel];
    if (w.bias)
        for (int64_t t = 0; t < count; t++) out[t] += w.bias[panel];
}

// Row r of w: the embedding of a token. Written in whole groups.
static void lookup(const Matrix& w, int64_t r, float* to) {
    const int64_t groups = groups_of(w), panel = r / 16, lane = r % 16;
    for (int64_t g = panel * groups; g < (panel + 1) * groups; g++) {
        const uint8_t* code = w.codes + g * (w.kind == INT4 ? 256 : 512);
        for (int i = 0; i < 8; i++) {
            uint32_t x;
            memcpy(&x, code + (w.kind == INT4 ? i % 4 : i) * 64 + lane * 4, 4);
            if (w.kind == INT4) x = x >> (i < 4 ? 0 : 4) & 0x0f0f0f0f;
            if (w.kind == FLOAT32) memcpy(to++, &x, 4);
            else if (w.kind == BFLOAT16)
                for (uint32_t half : {x << 16, x & 0xffff0000}) memcpy(to++, &half, 4);
            else
                for (int b = 0; b < 4; b++, x >>= 8) {
                    const int c = x & 255;
                    if (w.kind == INT8) *to++ = (float)(c - 128) * w.scales[panel][lane];
                    else {
                        const Halves* affine = w.affine + g * (1 + w.zeros);
                        *to++ = (float)(c - 8) * widen(affine[0])[lane] - (w.zeros ? 8 * widen(affine[1])[lane] : 0);
                    }
                }
        }
    }
}

// ---------------------------------------------------------------- norm, rotation, attention

static void rms_norm(const float* x, const float* weight, int64_t size, double eps, float* to) {
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < size; i++) squares += x[i] * x[i];
    const float scale = 1 / std::sqrt(squares / size + (float)eps);
    for (int64_t i = 0; i < size; i++) to[i] = x[i] * scale * weight[i];
}

static void rotate(float* x, const float* cos, const float* sin, int64_t half) {
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        const float first = x[i], second = x[half + i];
        x[i] = first * cos[i] - second * sin[i];
        x[half + i] = second * cos[i] + first * sin[i];
    }
}

static inline void put(float x, float* to) { *to = x; }
static inline void put(float x, uint16_t* to) {
    uint32_t b;
    memcpy(&b, &x, 4);
    *to = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
}

static void put_all(const Cache& c, const float* x, int64_t size, uint8_t* to, int64_t at) {
    if (c.bfloat16) for (int64_t i = 0; i < size; i++) put(x[i], (uint16_t*)to + at + i);
    else memcpy((float*)to + at, x, size * 4);
}

struct Item {  // of attention's work: the queries of some tokens of a sequence that share a key/value head
    const int64_t* place;  // of each position of the sequence
    int64_t token, position, count, head;
};

struct alignas(64) Desk {  // what one thread works on
    Ints queries[FEW][HEAD], position[QUERIES];
    Floats sums[FEW][HEAD], total[QUERIES], highest[QUERIES], scores[KEYS];
    int32_t keys[KEYS][HEAD], values[KEYS][HEAD], row[HEAD];
    Floats out[TOKENS + 16], up[TOKENS + 16];
};

// out[t]'s lanes added up, for 16 of them: lane t of the result.
static inline Floats totals(Floats* v) {
    UNROLL for (int left = 8; left; left /= 2)
        UNROLL for (int i = 0; i < left; i++) v[i] = EVENS(v[2 * i], v[2 * i + 1]) + ODDS(v[2 * i], v[2 * i + 1]);
    return v[0];
}

// Attention where few queries share the keys, as in decode: keys are read where they lie, 16 numbers to a vector.
template <class T>
__attribute__((noinline)) static void attend_few(const Model& m, const Cache& c, const Item& item, int64_t layer, int64_t window, const float* qkv, int64_t stride, float* y, int64_t y_stride, Desk& desk) {
    constexpr int PER = 4 / sizeof(T);
    const int64_t dim = m.head_dim, group = m.heads / m.kv_heads, rows = item.count * group, last = item.position + item.count - 1;
    const float scale = LOG2E / std::sqrt((float)dim);
    float weights[KEYS][FEW] = {}, highest[FEW], fade[FEW] = {};
    Floats total[FEW] = {};
    const T *keys[KEYS], *values[KEYS];
    const int64_t begin = layer * c.layer + item.head * c.head;
    for (int64_t r = 0; r < rows; r++) {
        const float* from = qkv + (item.token + r / group) * stride + (item.head * group + r % group) * dim;
        for (int64_t i = 0; i < dim; i++) put(from[i] * scale, (T*)desk.queries[r] + i);
        highest[r] = LOWEST;
        std::fill(desk.sums[r], desk.sums[r] + dim / 16, Floats{});
    }
    for (int64_t start = std::max<int64_t>(0, item.position - window + 1); start <= last; start += KEYS) {
        for (int64_t k = 0; k < KEYS; k++) {
            const int64_t at = begin + item.place[std::min(start + k, last)];
            keys[k] = (const T*)c.keys + at, values[k] = (const T*)c.values + at;
        }
        for (int64_t r = 0; r < rows; r++) {
            const int64_t position = item.position + r / group;
            Floats scores[KEYS / 16], most = repeat(LOWEST);
            for (int k = 0; k < KEYS; k += 16) {
                Floats part[16];
                UNROLL for (int i = 0; i < 16; i++) part[i] = Floats{};
                for (int64_t w = 0; w < dim / PER; w += 16) {
                    const Ints query = desk.queries[r][w / 16];
                    UNROLL for (int i = 0; i < 16; i++) {
                        const Ints key = (Ints)load((const float*)keys[k + i] + w);
                        part[i] = PER == 2 ? dot2(part[i], query, key) : part[i] + (Floats)query * (Floats)key;
                    }
                }
                const Ints p = (int32_t)(start + k) + COUNT;
                scores[k / 16] = (p <= (int32_t)position) & (p > (int32_t)(position - window)) ? totals(part) : repeat(LOWEST);
                most = largest(most, scores[k / 16]);
            }
            float top = highest[r];
            UNROLL for (int i = 0; i < 16; i++) top = std::max(top, most[i]);
            fade[r] = std::exp2(highest[r] - top), highest[r] = top;
            total[r] *= fade[r];
            for (int k = 0; k < KEYS; k += 16) {
                const Floats weight = exp2(scores[k / 16] - top);
                total[r] += weight;
                UNROLL for (int i = 0; i < 16; i++) weights[k + i][r] = weight[i];
            }
        }
        for (int64_t r = 0; r < rows; r += 4)
            for (int64_t d = 0; d < dim / 16; d += 4) {
                Floats sum[4][4];
                UNROLL for (int i = 0; i < 16; i++) sum[i / 4][i % 4] = desk.sums[r + i / 4][d + i % 4] * fade[r + i / 4];
                for (int k = 0; k < KEYS; k++)
                    UNROLL for (int j = 0; j < 4; j++) {
                        const Floats value = load_as_floats(values[k] + (d + j) * 16);
                        UNROLL for (int i = 0; i < 4; i++) sum[i][j] += value * weights[k][r + i];
                    }
                UNROLL for (int i = 0; i < 16; i++) desk.sums[r + i / 4][d + i % 4] = sum[i / 4][i % 4];
            }
    }
    for (int64_t r = 0; r < rows; r++) {
        const float share = 1 / ::total(total[r]);
        float* to = y + (item.token + r / group) * y_stride + (item.head * group + r % group) * dim;
        for (int64_t i = 0; i < dim / 16; i++) store(to + i * 16, desk.sums[r][i] * share);
    }
}

// Attention of an item over the T (float or bfloat16) in the cache: 16 queries to a vector, so that every step of the
// softmax is one operation for all of them; keys in pieces, with running maxima (Dao et al. 2022, arXiv:2205.14135 §3).
template <class T>
__attribute__((noinline)) static void attend(const Model& m, const Cache& c, const Item& item, int64_t layer, int64_t window, const float* qkv, int64_t stride, float* y, int64_t y_stride, Desk& desk) {
    constexpr int PER = 4 / sizeof(T);
    const int64_t dim = m.head_dim, words = dim / PER, group = m.heads / m.kv_heads, rows = item.count * group;
    const int64_t blocks = (rows + 15) / 16, columns = (dim + 15) / 16 * 16, last = item.position + item.count - 1;
    const float scale = LOG2E / std::sqrt((float)dim);
    for (int64_t b = 0; b < blocks; b++) {
        desk.highest[b] = repeat(LOWEST), desk.total[b] = Floats{};
        std::fill(desk.sums[b], desk.sums[b] + columns, Floats{});
        for (int64_t lane = 0; lane < 16; lane++) {
            const int64_t row = std::min(b * 16 + lane, rows - 1), t = row / group;
            desk.position[b][lane] = item.position + t;
            const float* from = qkv + (item.token + t) * stride + (item.head * group + row % group) * dim;
            for (int64_t i = 0; i < dim; i++) put(from[i] * scale, (T*)desk.row + i);
            for (int64_t i = 0; i < words; i++) ((int32_t*)&desk.queries[b][i])[lane] = desk.row[i];
        }
    }
    const int64_t begin = layer * c.layer + item.head * c.head;
    for (int64_t start = std::max<int64_t>(0, item.position - window + 1); start <= last; start += KEYS) {
        const int64_t count = std::min<int64_t>(KEYS, last - start + 1);
        for (int64_t k = 0; k < KEYS; k++) {
            // Behind the last key, its copies: masked, but numbers.
            const int64_t at = begin + item.place[std::min(start + k, last)];
            memcpy(desk.keys[k], (const T*)c.keys + at, dim * sizeof(T));
            const T* from = (const T*)c.values + at;
            if (PER == 1) memcpy(desk.values[k], from, dim * sizeof(T));
            else if (k % 2 == 0) for (int64_t i = 0; i < dim; i++) desk.values[k / 2][i] = from[i];
            else for (int64_t i = 0; i < dim; i++) desk.values[k / 2][i] |= (uint32_t)from[i] << 16;  // neighbours share a word
        }
        for (int64_t b = 0; b < blocks; b++) {
            const Ints* queries = desk.queries[b];
            const Ints position = desk.position[b];
            Floats *scores = desk.scores, *sums = desk.sums[b];
            if (start > position[15]) continue;
            for (int64_t k = 0; k < count; k += 16) {
                Floats score[16];
                const int32_t* key = desk.keys[k];
                UNROLL for (int i = 0; i < 16; i++) score[i] = Floats{};
                for (int64_t w = 0; w < words; w++)
                    UNROLL for (int i = 0; i < 16; i++) {
                        const Ints x = repeat(key + i * HEAD + w);
                        score[i] = PER == 2 ? dot2(score[i], queries[w], x) : score[i] + (Floats)queries[w] * (Floats)x;
                    }
                UNROLL for (int i = 0; i < 16; i++) scores[k + i] = score[i];
            }
            if (start + KEYS - 1 > position[0] || start <= position[15] - window)
                for (int32_t k = 0, p = start; k < KEYS; k++, p++)
                    scores[k] = (p <= position) & (p > position - (int32_t)window) ? scores[k] : repeat(LOWEST);
            Floats highest = desk.highest[b], total = {};
            for (int k = 0; k < KEYS; k++) highest = largest(highest, scores[k]);
            const Floats fade = exp2(desk.highest[b] - highest);
            for (int k = 0; k < KEYS; k++) total += scores[k] = exp2(scores[k] - highest);
            desk.highest[b] = highest, desk.total[b] = desk.total[b] * fade + total;
            if (PER == 2)
                for (int k = 0; k < KEYS; k += 2) scores[k / 2] = (Floats)((round_half(scores[k]) >> 16 & 0xffff) | round_half(scores[k + 1]));
            for (int64_t d = 0; d < columns; d += 16) {
                Floats sum[16];
                UNROLL for (int i = 0; i < 16; i++) sum[i] = sums[d + i] * fade;
                for (int k = 0; k < KEYS / PER; k++)
                    UNROLL for (int i = 0; i < 16; i++) {
                        const Ints x = repeat(&desk.values[k][d + i]);
                        sum[i] = PER == 2 ? dot2(sum[i], (Ints)scores[k], x) : sum[i] + scores[k] * (Floats)x;
                    }
                UNROLL for (int i = 0; i < 16; i++) sums[d + i] = sum[i];
            }
        }
    }
    for (int64_t row = 0; row < rows; row++) {
        const float share = 1 / desk.total[row / 16][row % 16], *from = (const float*)desk.sums[row / 16] + row % 16;
        float* to = y + (item.token + row / group) * y_stride + (item.head * group + row % group) * dim;
        for (int64_t i = 0; i < dim; i++) to[i] = from[i * 16] * share;
    }
}

// ---------------------------------------------------------------- the pass

// Call body(panel, first token, tokens) for all panels and blocks of tokens, shared among the threads.
template <class Body> static void each_panel(int64_t panels, int64_t tokens, Body body) {
    const int64_t blocks = (tokens + TOKENS - 1) / TOKENS;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < blocks * panels; i++) {
        const int64_t first = i / panels * TOKENS;
        body(i % panels, first, std::min<int64_t>(TOKENS, tokens - first));
    }
}

static int64_t padded(int64_t size) { return (size + 31) / 32 * 32; }

extern "C" void forward(const Model* model, const Cache* cache, const Pass* pass) {
    const Model& m = *model;
    const Cache& c = *cache;
    const int64_t all = pass->tokens, wanted = pass->wanted, half = m.head_dim / 2;
    const int64_t wide = padded(m.hidden), inner = padded(m.heads * m.head_dim), ffn = padded(m.ffn);
    const int64_t projected = padded(m.layer[0].qkv.rows), kv = m.kv_heads * m.head_dim;

    std::vector<int64_t> position, place, seen;  // of each token; seen: places of whole sequences, one after the other
    std::vector<Item> items;
    int64_t ends = 0;
    for (int64_t s = 0; s < pass->spans; s++) ends += pass->starts[s] + pass->counts[s];
    seen.reserve(ends);  // items point into it
    const int64_t* table = pass->tables;
    const int64_t share = std::max<int64_t>(1, QUERIES * 16 / (m.heads / m.kv_heads));
    for (int64_t s = 0; s < pass->spans; table += pass->width[s++]) {
        const int64_t start = pass->starts[s], end = start + pass->counts[s], *first = seen.data() + seen.size();
        for (int64_t p = 0; p < end; p++) seen.push_back(table[p / c.block_size] * c.block + p % c.block_size * c.slot);
        for (int64_t p = start; p < end; p++) {
            if ((p - start) % share == 0)
                for (int64_t h = 0; h < m.kv_heads; h++) items.push_back({first, (int64_t)position.size(), p, std::min(share, end - p), h});
            position.push_back(p), place.push_back(first[p]);
        }
    }
    std::reverse(items.begin(), items.end());  // the longest first, so that the threads end together

    int64_t most = 0;
    for (int64_t l = 0; l < m.layers; l++)
        for (const Matrix* w : {&m.layer[l].qkv, &m.layer[l].out, &m.layer[l].gate_up, &m.layer[l].down, &m.head}) most = std::max(most, groups_of(*w));
    const int64_t rows = (std::max(all, wanted) + 15) / 16 * 16, per_row = 2 * (wide + inner) + projected + ffn + most * 10;
    static thread_local std::vector<Floats> memory;  // kept: new memory costs more than its use
    memory.resize(std::max<size_t>(memory.size(), rows * per_row / 16 + pass->threads * most * 10));
    float* next = (float*)memory.data();
    auto take = [&](int64_t n) { return (next += n) - n; };
    float *const x0 = take(rows * wide), *const x1 = take(rows * wide), *const y0 = take(rows * inner), *const y1 = take(rows * inner);
    float *const qkv = take(rows * projected), *const h = take(rows * ffn);
    auto take_rows = [&](int64_t n) -> Rows { return {(uint8_t*)take(n * most * 8), take(n * most), (int32_t*)take(n * most)}; };
    const Rows shared = take_rows(rows);
    std::vector<Rows> own;  // of each thread
    for (int64_t i = 0; i < pass->threads; i++) own.push_back(take_rows(16));

#pragma omp parallel num_threads(pass->threads)
    {
        Desk desk;
        Floats *out = desk.out, *up = desk.up;
        std::vector<float> normed(wide);
        float *x = x0, *y = y0;
        Rows packed = shared;
#ifdef _OPENMP
        const int thread = omp_get_thread_num();
#else
        const int thread = 0;
#endif
        int64_t tokens = all;
        // Very few tokens are packed by every thread for itself: that is quicker than to wait for each other.
        auto each_token = [&](auto body) {
            packed = tokens <= ALONE ? own[thread] : shared;
            if (tokens <= ALONE) {
                for (int64_t t = 0; t < tokens; t++) body(t);
            } else {
#pragma omp for
                for (int64_t t = 0; t < tokens; t++) body(t);
            }
        };
        auto norm_and_pack = [&](const Matrix& w, const float* weight) {
            each_token([&](int64_t t) {
                rms_norm(x + t * wide, weight, m.hidden, m.eps, normed.data());
                pack(w, normed.data(), packed, t);
            });
        };
        auto pack_all = [&](const Matrix& w, const float* from, int64_t stride) {
            each_token([&](int64_t t) { pack(w, from + t * stride, packed, t); });
        };
        auto add_product = [&](const Matrix& w) {
            each_panel((w.rows + 15) / 16, tokens, [&](int64_t panel, int64_t first, int64_t count) {
                product(w, panel, packed, first, count, out);
                for (int64_t t = 0; t < count; t++) {
                    float* to = x + (first + t) * wide + panel * 16;
                    store(to, load(to) + out[t]);
                }
            });
        };
#pragma omp for
        for (int64_t t = 0; t < all; t++) lookup(m.embedding, pass->ids[t], x + t * wide);
        for (int64_t l = 0; l < m.layers; l++) {
            const Layer& layer = m.layer[l];
            norm_and_pack(layer.qkv, layer.norm);
            each_panel((layer.qkv.rows + 15) / 16, tokens, [&](int64_t panel, int64_t first, int64_t count) {
                product(layer.qkv, panel, packed, first, count, out);
                for (int64_t t = 0; t < count; t++) store(qkv + (first + t) * projected + panel * 16, out[t]);
            });
#pragma omp for
            for (int64_t t = 0; t < tokens; t++) {
                float* x = qkv + t * projected;
                for (int64_t i = 0; i < m.heads + 2 * m.kv_heads; i++, x += m.head_dim) {
                    const int64_t k = i - m.heads, v = k - m.kv_heads;
                    const float* weight = k < 0 ? layer.q_norm : v < 0 ? layer.k_norm : nullptr;
                    if (weight) rms_norm(x, weight, m.head_dim, m.eps, x);
                    if (v < 0) rotate(x, m.cos + position[t] * half, m.sin + position[t] * half, half);
                    if (k >= 0) put_all(c, x, m.head_dim, v < 0 ? c.keys : c.values, l * c.layer + place[t] + (v < 0 ? k : v) * c.head);
                }
            }
#pragma omp for schedule(dynamic)
            for (size_t i = 0; i < items.size(); i++) {
                const bool few = m.head_dim % 64 == 0 && items[i].count * (m.heads / m.kv_heads) <= FEW;
                auto method = c.bfloat16 ? few ? attend_few<uint16_t> : attend<uint16_t> : few ? attend_few<float> : attend<float>;
                method(m, c, items[i], l, layer.window, qkv, projected, y, inner, desk);
            }
            if (l == m.layers - 1) {  // behind the last attention, nobody asks for the other tokens
#pragma omp for
                for (int64_t i = 0; i < wanted; i++) {
                    memcpy(x1 + i * wide, x0 + pass->at[i] * wide, wide * 4);
                    memcpy(y1 + i * inner, y0 + pass->at[i] * inner, inner * 4);
                }
                x = x1, y = y1, tokens = wanted;
            }
            pack_all(layer.out, y, inner);
            add_product(layer.out);
            norm_and_pack(layer.gate_up, layer.mlp_norm);
            each_panel((layer.gate_up.rows + 31) / 32, tokens, [&](int64_t pair, int64_t first, int64_t count) {
                product(layer.gate_up, 2 * pair, packed, first, count, out);
                product(layer.gate_up, 2 * pair + 1, packed, first, count, up);
                for (int64_t t = 0; t < count; t++)
                    store(h + (first + t) * ffn + pair * 16, out[t] * up[t] / (1.f + exp2(largest(out[t], repeat(-80.f)) * -LOG2E)));
            });
            pack_all(layer.down, h, ffn);
            add_product(layer.down);
        }
        norm_and_pack(m.head, m.norm);
        each_panel((m.head.rows + 15) / 16, tokens, [&](int64_t panel, int64_t first, int64_t count) {
            product(m.head, panel, packed, first, count, out);
            for (int64_t t = 0; t < count; t++) store(pass->logits + (first + t) * m.head.rows + panel * 16, out[t], m.head.rows - panel * 16);
        });
    }
}
