// Attention over keys and values where the cache keeps them.
//
// 16 queries stand side by side in a vector, so that every step of the softmax is one operation for all of them; keys
// come in pieces, with a running maximum (Dao et al. 2022, arXiv:2205.14135 §3). Heads that share a KV head share its
// keys. Numbers are multiplied in the format of the cache, and added in float32.

#include "products.h"

constexpr int QUERIES = 4;         // vectors of 16 queries that share a piece of keys
constexpr int KEYS = 32;           // keys in a piece
constexpr int HEAD = 256 + 16;     // the largest head_dim, and more, so that rows do not compete for one cache line
constexpr float LOWEST = -1e30f;   // score of a key that is not to be seen

struct Cache {  // the key of a position is at keys + layer, block, slot and head, each times these numbers of elements
    int64_t bfloat16, block_size, layer, block, slot, head;
    uint8_t *keys, *values;
};
struct Heads {
    int64_t queries, keys, dim;
};
struct Item {  // of the work: the queries of some tokens of a sequence that share a KV head
    const int64_t* place;  // of each position of the sequence
    int64_t token, position, count, head;
};
struct alignas(64) Desk {  // what one thread works on
    Ints queries[QUERIES][HEAD], position[QUERIES];
    Floats sums[QUERIES][HEAD], total[QUERIES], highest[QUERIES], scores[KEYS];
    int32_t keys[KEYS][HEAD], values[KEYS][HEAD], row[HEAD];
};

static inline void put(float x, float* to) { *to = x; }
static inline void put(float x, uint16_t* to) {
    uint32_t b;
    memcpy(&b, &x, 4);
    *to = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
}

// Copy keys start … start + count - 1 (behind the last one, its copies) and their values, in words of 4 bytes.
template <class T>
static void fetch(const Cache& c, int64_t dim, const int64_t* place, int64_t begin, int64_t start, int64_t count,
                  int64_t last, Desk& desk) {
    for (int64_t k = 0; k < count; k++) {
        const int64_t at = begin + place[std::min(start + k, last)], later = begin + place[std::min(start + k + 2 * KEYS, last)];
        for (int64_t i = 0; i < dim; i += 64 / sizeof(T)) {  // memory is far away: ask for what comes later
            __builtin_prefetch((const T*)c.keys + later + i, 0, 2);
            __builtin_prefetch((const T*)c.values + later + i, 0, 2);
        }
        memcpy(desk.keys[k], (const T*)c.keys + at, dim * sizeof(T));
        const T* value = (const T*)c.values + at;
        if (sizeof(T) == 4) memcpy(desk.values[k], value, dim * 4);
        else if (k % 2 == 0) for (int64_t i = 0; i < dim; i++) desk.values[k / 2][i] = value[i];
        else for (int64_t i = 0; i < dim; i++) desk.values[k / 2][i] |= (uint32_t)value[i] << 16;  // two keys to a word
    }
}

// y of an item, over the T (float or bfloat16) in the cache. qkv: (tokens, stride), y: (tokens, y_stride).
template <class T>
static void attend(const Heads& heads, const Cache& c, const Item& item, int64_t layer, int64_t window, const float* qkv,
                   int64_t stride, float* y, int64_t y_stride, Desk& desk) {
    constexpr int PER = 4 / sizeof(T);  // numbers in a word
    const int64_t dim = heads.dim, group = heads.queries / heads.keys, rows = item.count * group;
    const int64_t blocks = (rows + 15) / 16, last = item.position + item.count - 1;
    const float scale = LOG2E / std::sqrt((float)dim);
    for (int64_t b = 0; b < blocks; b++) {
        desk.highest[b] = repeat(LOWEST), desk.total[b] = Floats{}, desk.position[b] = (int32_t)last - Ints{};
        std::fill_n(desk.sums[b], dim + 15, Floats{}), std::fill_n(desk.queries[b], dim / PER, Ints{});
    }
    for (int64_t row = 0; row < rows; row++) {
        const float* from = qkv + (item.token + row / group) * stride + (item.head * group + row % group) * dim;
        for (int64_t i = 0; i < dim; i++) put(from[i] * scale, (T*)desk.row + i);
        for (int64_t i = 0; i < dim / PER; i++) ((int32_t*)&desk.queries[row / 16][i])[row % 16] = desk.row[i];
        desk.position[row / 16][row % 16] = item.position + row / group;
    }
    for (int64_t start = std::max<int64_t>(0, item.position - window + 1); start <= last; start += KEYS) {
        const int64_t count = std::min<int64_t>(KEYS, (last - start) / 16 * 16 + 16);
        fetch<T>(c, dim, item.place, layer * c.layer + item.head * c.head, start, count, last, desk);
        for (int64_t b = 0; b < blocks; b++) {
            const Ints *queries = desk.queries[b], position = desk.position[b];
            Floats *scores = desk.scores, *sums = desk.sums[b];
            if (start > position[15]) continue;
            for (int64_t k = 0; k < count; k += 16) {
                Floats score[16] = {};
                for (int64_t w = 0; w < dim / PER; w++)
                    UNROLL for (int i = 0; i < 16; i++) {
                        const Ints x = repeat(desk.keys[k] + i * HEAD + w);
                        score[i] = PER == 2 ? dot2(score[i], queries[w], x) : fma((Floats)queries[w], (Floats)x, score[i]);
                    }
                UNROLL for (int i = 0; i < 16; i++) scores[k + i] = score[i];
            }
            if (start + count - 1 > position[0] || start <= position[15] - window)
                for (int32_t k = 0, p = start; k < count; k++, p++)
                    scores[k] = (p <= position) & (p > position - (int32_t)window) ? scores[k] : repeat(LOWEST);
            Floats highest = desk.highest[b], total = {};
            for (int k = 0; k < count; k++) highest = largest(highest, scores[k]);
            const Floats fade = exp2(desk.highest[b] - highest);
            for (int k = 0; k < count; k++) total += scores[k] = exp2(scores[k] - highest);
            desk.highest[b] = highest, desk.total[b] = fma(desk.total[b], fade, total);
            for (int k = 0; k < count && PER == 2; k += 2)
                scores[k / 2] = (Floats)((round_half(scores[k]) >> 16 & 0xffff) | round_half(scores[k + 1]));
            for (int64_t d = 0; d < dim; d += 16) {
                Floats sum[16];
                UNROLL for (int i = 0; i < 16; i++) sum[i] = sums[d + i] * fade;
                for (int k = 0; k < count / PER; k++)
                    UNROLL for (int i = 0; i < 16; i++) {
                        const Ints x = repeat(&desk.values[k][d + i]);
                        sum[i] = PER == 2 ? dot2(sum[i], (Ints)scores[k], x) : fma(scores[k], (Floats)x, sum[i]);
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
