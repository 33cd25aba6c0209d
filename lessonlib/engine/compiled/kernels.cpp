// One forward pass. What is computed is model.py's forward, step by step; how, the two headers tell.

#include <vector>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num() { return 0; }
#endif

#include "attention.h"

constexpr int TOKENS = 64;  // tokens that stay in the CPU's cache while panels of weights stream past
constexpr int ALONE = 2;    // so few tokens every thread prepares for itself: quicker than to wait for each other

// What Python hands over (pack.py).
struct Layer {
    Matrix qkv, out, gate_up, down;  // gate_up: a panel of gate, its panel of up, the next of gate, …
    const float *norm, *mlp_norm, *q_norm, *k_norm;
    int64_t window;
};
struct Model {
    int64_t layers, hidden, ffn;
    Heads heads;
    double eps;
    const Layer* layer;
    Matrix embedding, head;
    const float *norm, *cos, *sin;  // cos, sin: (positions, head_dim / 2)
};
struct Pass {
    int64_t tokens, spans, wanted, threads;
    const int64_t *ids, *starts, *counts, *tables, *widths;  // tables: of all spans end to end, so wide each
    const int64_t* at;                                       // the tokens whose logits are wanted
    float* logits;                                           // (wanted, vocabulary)
};

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

// Call body(panel, first token, tokens) for all panels and all blocks of tokens, shared among the threads.
template <class Body> static void each_panel(int64_t panels, int64_t tokens, int64_t threads, Body body) {
    const int64_t calls = (tokens + TOKENS - 1) / TOKENS * panels;
    // Few tokens: one stretch of memory for each thread. Many: small portions, for cores are not all equally fast.
    const int64_t portions = tokens < 8 ? threads : 8 * threads;
#pragma omp for schedule(dynamic, (calls + portions - 1) / portions)
    for (int64_t i = 0; i < calls; i++) {
        const int64_t first = i / panels * TOKENS;
        body(i % panels, first, std::min<int64_t>(TOKENS, tokens - first));
    }
}

extern "C" void forward(const Model* model, const Cache* cache, const Pass* pass) {
    const Model& m = *model;
    const Cache& c = *cache;
    const int64_t all = pass->tokens, wanted = pass->wanted, threads = pass->threads;
    const int64_t dim = m.heads.dim, group = m.heads.queries / m.heads.keys;

    std::vector<int64_t> position, place, seen;  // place of each token; seen: places of whole sequences, end to end
    std::vector<Item> items;
    const int64_t *table = pass->tables, tokens_of_item = std::max<int64_t>(1, QUERIES * 16 / group);
    int64_t ends = 0;
    for (int64_t s = 0; s < pass->spans; s++) ends += pass->starts[s] + pass->counts[s];
    seen.reserve(ends);  // items point into it
    for (int64_t s = 0; s < pass->spans; table += pass->widths[s++]) {
        const int64_t start = pass->starts[s], end = start + pass->counts[s], *first = seen.data() + seen.size();
        for (int64_t p = 0; p < end; p++)
            seen.push_back(table[p / c.block_size] * c.block + p % c.block_size * c.slot);
        for (int64_t p = start; p < end; p++) {
            for (int64_t h = 0; h < m.heads.keys && (p - start) % tokens_of_item == 0; h++)
                items.push_back({first, (int64_t)position.size(), p, std::min(tokens_of_item, end - p), h});
            position.push_back(p), place.push_back(first[p]);
        }
    }
    std::reverse(items.begin(), items.end());  // the longest first, so that the threads end together

    auto padded = [](int64_t size) { return (size + 31) / 32 * 32; };
    const int64_t wide = padded(m.hidden), inner = padded(m.heads.queries * dim), ffn = padded(m.ffn);
    const int64_t projected = padded(m.layer->qkv.rows), rows = (std::max(all, wanted) + 15) / 16 * 16;
    int64_t groups = groups_of(m.head);
    for (int64_t l = 0; l < m.layers; l++)
        for (const Matrix* w : {&m.layer[l].qkv, &m.layer[l].out, &m.layer[l].gate_up, &m.layer[l].down})
            groups = std::max(groups, groups_of(*w));
    static thread_local std::vector<Floats> memory;  // kept from pass to pass: new memory costs more than its use
    const size_t needed = rows * (2 * wide + 2 * inner + projected + ffn + 10 * groups) / 16 + threads * 10 * groups;
    if (memory.size() < needed) memory.resize(needed);
    float* next = (float*)memory.data();
    auto take = [&](int64_t width, int64_t count) { return (next += width * count) - width * count; };
    auto take_rows = [&](int64_t count) -> Rows {
        return {(uint8_t*)take(8 * groups, count), take(groups, count), (int32_t*)take(groups, count)};
    };
    float *const x_all = take(wide, rows), *const x_wanted = take(wide, rows), *const y_all = take(inner, rows);
    float *const y_wanted = take(inner, rows), *const qkv = take(projected, rows), *const h = take(ffn, rows);
    const Rows together = take_rows(rows);
    std::vector<Rows> apart;
    for (int64_t i = 0; i < threads; i++) apart.push_back(take_rows(16));

#pragma omp parallel num_threads(threads)
    {
        Desk desk;
        alignas(64) Floats out[TOKENS + 16], up[TOKENS + 16];
        std::vector<float> normed(wide + 16);
        float *x = x_all, *y = y_all;
        int64_t tokens = all;
        Rows packed;
        auto pack_each = [&](auto body) {
            if (tokens <= ALONE) {
                packed = apart[omp_get_thread_num()];
                for (int64_t t = 0; t < tokens; t++) body(t);
            } else {
                packed = together;
#pragma omp for
                for (int64_t t = 0; t < tokens; t++) body(t);
            }
        };
        auto pack_norm = [&](const Matrix& w, const float* weight) {
            pack_each([&](int64_t t) {
                rms_norm(x + t * wide, weight, m.hidden, m.eps, normed.data());
                pack(w, normed.data(), packed, t);
            });
        };
        auto add_product = [&](const Matrix& w) {
            each_panel(panels_of(w), tokens, threads, [&](int64_t panel, int64_t first, int64_t count) {
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
            pack_norm(layer.qkv, layer.norm);
            each_panel(panels_of(layer.qkv), tokens, threads, [&](int64_t panel, int64_t first, int64_t count) {
                product(layer.qkv, panel, packed, first, count, out);
                for (int64_t t = 0; t < count; t++) store(qkv + (first + t) * projected + panel * 16, out[t]);
            });
#pragma omp for
            for (int64_t t = 0; t < tokens; t++) {
                float* one = qkv + t * projected;
                for (int64_t i = 0; i < m.heads.queries + 2 * m.heads.keys; i++, one += dim) {
                    const int64_t k = i - m.heads.queries, v = k - m.heads.keys;
                    const float* weight = k < 0 ? layer.q_norm : v < 0 ? layer.k_norm : nullptr;
                    if (weight) rms_norm(one, weight, dim, m.eps, one);
                    if (v < 0) rotate(one, m.cos + position[t] * (dim / 2), m.sin + position[t] * (dim / 2), dim / 2);
                    if (k < 0) continue;
                    uint8_t* to = v < 0 ? c.keys : c.values;
                    const int64_t at = l * c.layer + place[t] + (v < 0 ? k : v) * c.head;
                    for (int64_t j = 0; j < dim; j++)
                        c.bfloat16 ? put(one[j], (uint16_t*)to + at + j) : put(one[j], (float*)to + at + j);
                }
            }
#pragma omp for schedule(dynamic)
            for (size_t i = 0; i < items.size(); i++)
                (c.bfloat16 ? attend<uint16_t> : attend<float>)(
                    m.heads, c, items[i], l, layer.window, qkv, projected, y, inner, desk);
            if (l == m.layers - 1) {  // behind the last attention, only these tokens matter
#pragma omp for
                for (int64_t i = 0; i < wanted; i++) {
                    memcpy(x_wanted + i * wide, x + pass->at[i] * wide, wide * 4);
                    memcpy(y_wanted + i * inner, y + pass->at[i] * inner, inner * 4);
                }
                x = x_wanted, y = y_wanted, tokens = wanted;
            }
            pack_each([&](int64_t t) { pack(layer.out, y + t * inner, packed, t); });
            add_product(layer.out);
            pack_norm(layer.gate_up, layer.mlp_norm);
            each_panel(panels_of(layer.gate_up) / 2, tokens, threads, [&](int64_t pair, int64_t first, int64_t count) {
                product(layer.gate_up, 2 * pair, packed, first, count, out);
                product(layer.gate_up, 2 * pair + 1, packed, first, count, up);
                for (int64_t t = 0; t < count; t++) {
                    const Floats silu = out[t] / (1.f + exp2(largest(out[t], repeat(-80.f)) * -LOG2E));
                    store(h + (first + t) * ffn + pair * 16, silu * up[t]);
                }
            });
            pack_each([&](int64_t t) { pack(layer.down, h + t * ffn, packed, t); });
            add_product(layer.down);
        }
        pack_norm(m.head, m.norm);
        each_panel(panels_of(m.head), tokens, threads, [&](int64_t panel, int64_t first, int64_t count) {
            product(m.head, panel, packed, first, count, out);
            for (int64_t t = 0; t < count; t++)
                store(pass->logits + (first + t) * m.head.rows + panel * 16, out[t], m.head.rows - panel * 16);
        });
    }
}

// y (tokens, w.rows) = x (tokens, w.columns) Wᵀ + bias: a product by itself, for the tests.
extern "C" void multiply(const Matrix* w, const float* x, int64_t tokens, float* y) {
    const int64_t rows = (tokens + 15) / 16 * 16, groups = groups_of(*w);
    std::vector<Floats> memory(rows * groups * 10 / 16), out(rows + 16);
    float* scale = (float*)(memory.data() + rows * groups / 2);
    const Rows packed = {(uint8_t*)memory.data(), scale, (int32_t*)scale + rows * groups};
    for (int64_t t = 0; t < tokens; t++) pack(*w, x + t * w->columns, packed, t);
    for (int64_t panel = 0; panel < panels_of(*w); panel++) {
        product(*w, panel, packed, 0, tokens, out.data());
        for (int64_t t = 0; t < tokens; t++) store(y + t * w->rows + panel * 16, out[t], w->rows - panel * 16);
    }
}
