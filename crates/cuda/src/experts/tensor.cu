// The mixture of experts on tensor cores. One row alone runs its experts side by side. Several rows are
// sorted by expert first, so that those that share one read it together; a shared expert is one that
// every row has chosen. Whatever the way, each product is the chain of `tensor/few.cu`, and the outputs
// are added in the same order: the shared expert's, then those of the chosen.

struct Item {
    u32 expert; // the number of routed experts stands for the shared one
    u32 first;  // of its pairs, in `order`
    u32 count;
    u32 unused;
};

struct HalfExpertsArgs {
    ExpertsArgs e;
    const u16 *x;  // [rows][hidden]
    u16 *middle;   // [pairs][inner]; row r's choice k is pair r * (used + 1) + k, the shared expert last
    float *parts;  // [pairs][hidden]
    u32 *order;    // pairs, by expert
    Item *items;   // the first says in `count` how many follow
    RouteArgs route;
    HalfProductsArgs router; // its product
    u32 router_blocks, rows, experts, per_item;
    u32 shared_items; // 1: the shared expert's pairs are sorted with the others
    u32 inner_tiles;  // of few rows: tiles of 16 inner values that a block takes
};

// The table of IQ2_XXS, where a format needs one, begins a block's shared memory.
__device__ __forceinline__ bool has_table(u32 format) { return format == IQ2_XXS; }

__device__ __forceinline__ void *behind_table(uint4 *shared, u32 format) { return shared + (has_table(format) ? sizeof(Iq2Table) / 16 : 0); }

// How much shared memory a warp's pieces take, and how many of them it has.
template <int F> struct Ahead {
    static const int pieces = 2;
    static const u32 bytes = pieces * Piece<F>::bytes;
};
template <> struct Ahead<ANY> {
    static const int pieces = 1;
    static const u32 bytes = WIDEST_PIECE;
};

// A warp's segments, whose matrices have one format, times up to 8 vectors.
// `ready` waits for the vectors; every thread of the block must call this.
template <int F, class Which, class Ready, class Input, class Done>
__device__ __forceinline__ void warp_segments(u8 *room, u32 count, u32 format, const Iq2Table *table, Which part, Ready ready, Input input, Done done) {
    const int D = Ahead<F>::pieces;
    if (F != ANY) {
        begin_segments<F == ANY ? OTHER : F, D>(room, count, part);
        ready();
        return end_segments<F == ANY ? OTHER : F, 1, D>(room, count, table, part, input, done);
    }
#define BODY(G) begin_segments<G, 1>(room, count, part), ready(), end_segments<G, 1, 1>(room, count, table, part, input, done)
    FOR_EXPERT_CODES(format, BODY)
#undef BODY
}

// ------------------------------------------------------------------ few rows

// 16 values of inner vectors, several times (or, where rows are short, by several groups of warps).
struct Inner {
    const Matrix &gate, &up;
    u32 first, tiles; // of 16
    float limit;
};

__device__ __forceinline__ u32 tiles_at_once(u32 cols) { return FEW_WARPS / sharers(cols); }

template <int F, class Ready>
__device__ __forceinline__ void few_inner(const HalfExpertsArgs &a, const Inner &of, Ready ready, u32 count, const u16 *input, const u32 *pairs, const float *weights, u8 *rooms, const Iq2Table *table) {
    const ExpertsArgs &e = a.e;
    u32 segments = segments_of(e.hidden), share = sharers(e.hidden), groups = FEW_WARPS / share, warp = threadIdx.x / 32;
    float *partial = (float *)(rooms + FEW_WARPS * Ahead<F>::bytes);
    // A warp takes the segments lead, lead + share, ... of every `groups`-th tile: gate and up in turns.
    u32 tile = warp / share, lead = warp % share, of_tile = (segments - lead + share - 1) / share;
    u32 tiles = tile < groups && of.tiles > tile ? (of.tiles - tile + groups - 1) / groups : 0;
    auto part = [&](u32 i) { return Part{i % 2 ? of.up : of.gate, (of.first + tile + i / 2 / of_tile * groups) * 16, 2 * (lead + i / 2 % of_tile * share)}; };
    auto vector = [&](u32, u32) { return input; };
    auto done = [&](u32 i, const float (&sum)[1][4]) {
        u32 t = tile + i / 2 / of_tile * groups, segment = lead + i / 2 % of_tile * share;
        put_segment<1>(partial + ((t * 2 + i % 2) * segments + segment) * 128, sum);
    };
    warp_segments<F>(rooms + warp * Ahead<F>::bytes, 2 * tiles * of_tile, of.gate.format, table, part, ready, vector, done);
    __syncthreads();
    float scale = unscale(of.gate.format);
    for (u32 o = threadIdx.x; o < of.tiles * 16 * count; o += blockDim.x) {
        u32 row = o % 16, which = o / 16 % of.tiles, n = o / 16 / of.tiles, i = (of.first + which) * 16 + row;
        if (i >= e.inner) continue;
        const float *sums = partial + which * segments * 256 + row * 8 + n;
        float g = 0.0f, u = 0.0f;
        for (u32 s = 0; s < segments; s++) g += sums[s * 128], u += sums[(segments + s) * 128];
        float m = swiglu(g * scale, u * scale, of.limit) * weights[n];
        a.middle[(u64)pairs[n] * e.inner + i] = half_of(m);
    }
}

// The router's product, and the inner vectors of the shared expert, which nobody has to choose.
extern "C" __global__ void __launch_bounds__(256, 2) router_and_shared(const HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    __shared__ u32 pairs[8];
    __shared__ float ones[8];
    const ExpertsArgs &e = a.e;
    invite();
    if (blockIdx.x < a.router_blocks) return half_products<1, ANY>(a.router, blockIdx.x, shared_memory);
    u32 tiles = tiles_at_once(e.hidden), first = (blockIdx.x - a.router_blocks) * tiles, r = blockIdx.y * 8;
    if (threadIdx.x < 8) pairs[threadIdx.x] = (r + threadIdx.x) * (e.used + 1) + e.used, ones[threadIdx.x] = 1.0f;
    u32 count = min(8u, a.rows - r), n = threadIdx.x % 32 / 4;
    Inner of = {e.shared_gate, e.shared_up, first, tiles, e.shared_limit};
    few_inner<ANY>(a, of, [] { await(); }, count, n < count ? a.x + (u64)(r + n) * e.hidden : nullptr, pairs, ones, (u8 *)shared_memory, nullptr);
}

// Of one row: the inner vectors of the experts that it chooses, which every block finds out by itself.
template <int F> __device__ __forceinline__ void experts_in_1(const HalfExpertsArgs &a, uint4 *shared_memory) {
    __shared__ u32 pair[1];
    __shared__ float weight[1];
    const ExpertsArgs &e = a.e;
    Iq2Table *table = (Iq2Table *)shared_memory;
    float *rest = (float *)behind_table(shared_memory, e.gate.first.format);
    if (has_table(e.gate.first.format)) fill(*table);
    u32 tiles = a.inner_tiles, per_expert = (e.inner / 16 + tiles - 1) / tiles, k = blockIdx.x / per_expert;
    await();
    u32 *picks = (u32 *)(rest + 2 * a.experts);
    route_row(a.route, 0, rest, picks);
    if (blockIdx.x == 0) store_route(a.route, 0, picks);
    u32 expert = picks[k];
    if (threadIdx.x == 0) pair[0] = k, weight[0] = ((float *)picks)[e.used + k];
    __syncthreads();
    Matrix gate = member(e.gate, expert), up = member(e.up, expert);
    Inner of = {gate, up, blockIdx.x % per_expert * tiles, tiles, e.limit};
    few_inner<F>(a, of, [] {}, 1, threadIdx.x % 32 < 4 ? a.x : nullptr, pair, weight, (u8 *)rest, table);
}

extern "C" __global__ void __launch_bounds__(256, 2) half_experts_in_1(const HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    experts_in_1<ANY>(a, shared_memory);
}

extern "C" __global__ void __launch_bounds__(256, 2) half_experts_in_1_iq2(const HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    experts_in_1<IQ2_XXS>(a, shared_memory);
}

// The same for the items of several rows.
template <int F> __device__ __forceinline__ void experts_in_8(const HalfExpertsArgs &a, uint4 *shared_memory) {
    __shared__ u32 pairs[8];
    __shared__ float weights[8];
    const ExpertsArgs &e = a.e;
    if (has_table(e.gate.first.format)) fill(*(Iq2Table *)shared_memory);
    await();
    if (blockIdx.y >= a.items[0].count) return;
    const Item item = a.items[1 + blockIdx.y];
    if (threadIdx.x < 8) {
        u32 pair = a.order[item.first + min(threadIdx.x, item.count - 1)], r = pair / (e.used + 1), k = pair % (e.used + 1);
        pairs[threadIdx.x] = pair, weights[threadIdx.x] = e.weights[(u64)r * e.used + k];
    }
    __syncthreads();
    u32 n = threadIdx.x % 32 / 4, tiles = a.inner_tiles;
    const u16 *input = n < item.count ? a.x + (u64)(pairs[n] / (e.used + 1)) * e.hidden : nullptr;
    Matrix gate = member(e.gate, item.expert), up = member(e.up, item.expert);
    Inner of = {gate, up, blockIdx.x * tiles, tiles, e.limit};
    few_inner<F>(a, of, [] {}, item.count, input, pairs, weights, (u8 *)behind_table(shared_memory, e.gate.first.format), (Iq2Table *)shared_memory);
}

extern "C" __global__ void __launch_bounds__(256, 2) half_experts_in_8(const HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    experts_in_8<ANY>(a, shared_memory);
}

extern "C" __global__ void __launch_bounds__(256, 2) half_experts_in_8_iq2(const HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    experts_in_8<IQ2_XXS>(a, shared_memory);
}

// A block computes 16 values of one row's output: each warp takes segments of the chosen experts, and some
// warps one of the shared expert, whose weights are asked for before anything has been chosen.
template <int F> __device__ __forceinline__ void experts_out_1(const HalfExpertsArgs &a, uint4 *shared_memory) {
    const ExpertsArgs &e = a.e;
    Iq2Table *table = (Iq2Table *)shared_memory;
    u8 *rooms = (u8 *)behind_table(shared_memory, e.down.first.format);
    u32 warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, row = blockIdx.x * 16, segments = segments_of(e.inner), used = e.used;
    u8 *room = rooms + warp * Ahead<F>::bytes, *beside = rooms + FEW_WARPS * Ahead<F>::bytes;
    float *outputs = (float *)(beside + (F == ANY ? 0 : sharers(e.inner) * WIDEST_PIECE)); // [used + 1][segments][16]
    beside = F == ANY ? room : beside + warp * WIDEST_PIECE;
    u32 shared = warp < segments ? (segments - warp + FEW_WARPS - 1) / FEW_WARPS : 0;
    auto shared_part = [&](u32 i) { return Part{e.shared_down, row, 2 * (warp + i * FEW_WARPS)}; };
#define BODY(G) begin_segments<G, 1>(beside, shared, shared_part)
    FOR_CODES(e.shared_down.format, BODY)
#undef BODY
    if (has_table(e.down.first.format)) fill(*table);
    await();
    __syncthreads();
    u32 all = used * segments, mine = warp < all ? (all - warp + FEW_WARPS - 1) / FEW_WARPS : 0;
    Matrix down;
    auto part = [&](u32 i) {
        u32 task = warp + i * FEW_WARPS;
        down = member(e.down, e.picked[task / segments]);
        return Part{down, row, 2 * (task % segments)};
    };
    auto vector = [&](u32 i, u32) { return g == 0 ? a.middle + (u64)((warp + i * FEW_WARPS) / segments) * e.inner : nullptr; };
    auto put = [&](u32 task, const float (&sum)[1][4]) {
        float *at = outputs + task * 16 + g;
        if (threadIdx.x % 4 == 0) at[0] = sum[0][0], at[8] = sum[0][2];
    };
    auto end_shared = [&] {
        auto shared_vector = [&](u32, u32) { return g == 0 ? a.middle + (u64)used * e.inner : nullptr; };
        auto done = [&](u32 i, const float (&sum)[1][4]) { put(all + warp + i * FEW_WARPS, sum); };
#define BODY(G) end_segments<G, 1, 1>(beside, shared, nullptr, shared_part, shared_vector, done)
        FOR_CODES(e.shared_down.format, BODY)
#undef BODY
    };
    auto done = [&](u32 i, const float (&sum)[1][4]) { put(warp + i * FEW_WARPS, sum); };
    if (F == ANY) end_shared();
    warp_segments<F>(room, mine, e.down.first.format, table, part, [&] { if (F != ANY) end_shared(); }, vector, done);
    __syncthreads();
    u32 d = row + threadIdx.x;
    if (threadIdx.x >= 16 || d >= e.hidden) return;
    float y = 0.0f, scale = unscale(e.down.first.format);
    for (u32 s = 0; s < segments; s++) y += outputs[(all + s) * 16 + threadIdx.x];
    y *= unscale(e.shared_down.format);
    for (u32 k = 0; k < used; k++) {
        float sum = 0.0f;
        for (u32 s = 0; s < segments; s++) sum += outputs[(k * segments + s) * 16 + threadIdx.x];
        y = __fadd_rn(y, __fmul_rn(sum, scale));
    }
    e.out[d] = y;
}

extern "C" __global__ void __launch_bounds__(256, 2) half_experts_out_1(const HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    experts_out_1<ANY>(a, shared_memory);
}

extern "C" __global__ void __launch_bounds__(256, 2) half_experts_out_1_q2(const HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    experts_out_1<Q2_K>(a, shared_memory);
}

// Eight times 16 rows of an item's output matrix.
template <int F> __device__ __forceinline__ void experts_out_8(const HalfExpertsArgs &a, uint4 *shared_memory) {
    __shared__ u32 pairs[8];
    const ExpertsArgs &e = a.e;
    Iq2Table *table = (Iq2Table *)shared_memory;
    if (has_table(e.down.first.format)) fill(*table);
    await();
    if (blockIdx.y >= a.items[0].count) return;
    const Item item = a.items[1 + blockIdx.y];
    if (threadIdx.x < 8) pairs[threadIdx.x] = a.order[item.first + min(threadIdx.x, item.count - 1)];
    __syncthreads();
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = (blockIdx.x * FEW_WARPS + threadIdx.x / 32) * 16;
    if (row >= e.hidden) return;
    Matrix down = member(e.down, item.expert);
    const u16 *input = g < item.count ? a.middle + (u64)pairs[g] * e.inner : nullptr;
    float total[4] = {}, scale = unscale(down.format);
    auto part = [&](u32 i) { return Part{down, row, 2 * i}; };
    auto vector = [&](u32, u32) { return input; };
    auto done = [&](u32, const float (&sum)[1][4]) {
#pragma unroll
        for (int j = 0; j < 4; j++) total[j] += sum[0][j];
    };
    u8 *room = (u8 *)behind_table(shared_memory, e.down.first.format) + threadIdx.x / 32 * Ahead<F>::bytes;
    warp_segments<F>(room, segments_of(e.inner), down.format, table, part, [] {}, vector, done);
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        u32 n = 2 * t + j % 2, d = row + g + j / 2 * 8;
        if (n < item.count && d < e.hidden) a.parts[(u64)pairs[n] * e.hidden + d] = total[j] * scale;
    }
}

extern "C" __global__ void __launch_bounds__(256, 2) half_experts_out_8(const HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    experts_out_8<ANY>(a, shared_memory);
}

extern "C" __global__ void __launch_bounds__(256, 3) half_experts_out_8_q2(const HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    experts_out_8<Q2_K>(a, shared_memory);
}
