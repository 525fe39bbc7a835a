// What the blocks of `tensor/hopper.cu` do: products of a list, inner vectors of experts, their outputs. Each
// format has a kernel of its own, because registers are short.

struct WideArgs {
    // Products of one format.
    const HalfProduct *products;
    u32 count, rows; // of the batch
    // Or items of experts: gates and the other inputs, or output matrices, both the same.
    const Item *items; // the first says in `count` how many follow; null: products
    const u32 *order;  // pairs, by expert
    Stack upper, lower;
    Matrix shared_upper, shared_lower;
    const u16 *packed;    // what is multiplied with: by `pack_vectors`
    const float *weights; // [rows][used]
    float *outputs;       // [pairs][hidden] of output matrices
    u16 *middle;          // [pairs][inner] of gates; null: output matrices
    u32 used;
    u32 shared_items; // of the shared expert: the last
    u32 only_shared;  // 1: those, 0: the others
    float limit, shared_limit;
    u32 unused;
    const float *units;   // [rows][columns / 256] of vectors that are whole numbers, where experts' inputs are IQ2_XXS
    InnerNumbers inner;   // of the pairs' vectors, where outputs are Q2_K
};

// Where what has been summed goes, remembered in shared memory.
struct WideTarget {
    float *floats; // null: not wanted
    u16 *halves;   // null: not wanted
    u32 stride;    // from one vector's values to the next
    u32 rows;      // of all
    u32 row;       // the block's first
    u32 count;     // of vectors
    float scale, limit; // the first is the format's: `wide` says it
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// What a warp multiplies: row `upper` of one matrix, and `lower` of another, or the same, each with the seven behind it.
struct WideRows {
    Matrix above, below;
    u32 upper, lower;
};

// A block's vectors are its x and z together: blocks that run at the same time share weights and vectors.
__device__ __forceinline__ bool wide_product(const WideArgs &a, WideRows &rows, Packed &packed, WideTarget &target, u32 *places) {
    u32 first = (blockIdx.z * gridDim.x + blockIdx.x) * WIDE_VECTORS, i = 0;
    if (first >= a.rows) return false;
    while (i + 1 < a.count && a.products[i + 1].p.first_block <= blockIdx.y) i++;
    const HalfProduct &p = a.products[i];
    u32 top = (blockIdx.y - p.p.first_block) * WIDE_ROWS, row = top + threadIdx.x / 32 * 16;
    rows = {p.p.m, p.p.m, row, row + 8};
    u32 group = p.p.group_rows ? min(top, p.p.m.rows - 1) / p.p.group_rows : 0;
    target = {p.p.y, p.y, p.p.y_stride, p.p.m.rows, top, min(WIDE_VECTORS, a.rows - first), 1.0f, 0.0f};
    packed = {a.packed + (u64)first * p.p.x_stride + group * p.p.group_stride * 8, 8 * p.p.x_stride, (target.count + 7) / 8};
    if (threadIdx.x < WIDE_VECTORS) places[threadIdx.x] = first + threadIdx.x;
    return true;
}

// A warp takes eight rows of a gate and the same of the other input, so that both of a value come to one lane.
__device__ __forceinline__ bool wide_item(const WideArgs &a, WideRows &rows, Packed &packed, WideTarget &target, u32 *places, float *weights) {
    u32 others = a.items[0].count - a.shared_items;
    if (blockIdx.y >= (a.only_shared ? a.shared_items : others)) return false;
    const u32 i = (a.only_shared ? others : 0) + blockIdx.y;
    const Item item = a.items[1 + i];
    bool shared = a.only_shared, inner = a.middle;
    rows.above = shared ? a.shared_upper : member(a.upper, item.expert), rows.below = shared ? a.shared_lower : member(a.lower, item.expert);
    u32 top = blockIdx.x * (inner ? WIDE_ROWS / 2 : WIDE_ROWS), warp = threadIdx.x / 32;
    rows.upper = top + warp * (inner ? 8 : 16), rows.lower = rows.upper + (inner ? 0 : 8);
    target = {inner ? nullptr : a.outputs, a.middle, rows.above.rows, rows.above.rows, top, item.count, 1.0f, shared ? a.shared_limit : a.limit};
    packed = {a.packed + (u64)group_of_item(item, i) * 8 * rows.above.cols, 8 * rows.above.cols, (item.count + 7) / 8};
    if (threadIdx.x < WIDE_VECTORS) {
        u32 pair = a.order[item.first + min(threadIdx.x, item.count - 1)];
        places[threadIdx.x] = pair;
        if (inner) weights[threadIdx.x] = shared ? 1.0f : a.weights[(u64)(pair / (a.used + 1)) * a.used + pair % (a.used + 1)];
    }
    return true;
}

// Calls `take(i, high, low)` with what a lane has of vector `i`.
template <class Take> __device__ __forceinline__ void each_of_wide(const float (&total)[64], u32 count, float scale, Take take) {
#pragma unroll
    for (u32 n = 0; n < WIDE_VECTORS / 8; n++)
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            u32 i = 8 * n + threadIdx.x % 4 * 2 + j;
            if (i < count) take(i, total[4 * n + j] * scale, total[4 * n + 2 + j] * scale);
        }
}

// Puts what has been summed where it belongs.
__device__ __forceinline__ void wide_store(const float (&total)[64], const WideTarget target, const u32 *places, const float *weights, bool inner) {
    u32 row = target.row + threadIdx.x / 32 * (inner ? 8 : 16) + threadIdx.x % 32 / 4;
    if (row >= target.rows) return;
    bool both = row + 8 < target.rows;
    if (inner) {
        each_of_wide(total, target.count, target.scale, [&](u32 i, float gate, float up) {
            target.halves[(u64)places[i] * target.stride + row] = half_of(swiglu(gate, up, target.limit) * weights[i]);
        });
        return;
    }
    if (target.floats)
        each_of_wide(total, target.count, target.scale, [&](u32 i, float high, float low) {
            float *at = target.floats + (u64)places[i] * target.stride + row;
            at[0] = high;
            if (both) at[8] = low;
        });
    if (target.halves)
        each_of_wide(total, target.count, target.scale, [&](u32 i, float high, float low) {
            u16 *at = target.halves + (u64)places[i] * target.stride + row;
            at[0] = half_of(high);
            if (both) at[8] = half_of(low);
        });
}

// Products of fewer vectors are faster.
template <int F, class Units>
__device__ __forceinline__ void wide_some(const WideRows &rows, u32 count, const Packed &packed, const Units &units, u8 *room, const Iq2Table *table, float (&total)[64]) {
    Eight<F> above(rows.above, rows.upper), below(rows.below, rows.lower);
    u32 blocks = rows.above.cols / 256;
    if (count <= 64)
        wide_columns<F, 64>(above, below, blocks, packed, units, room, table, total);
    else if (count <= 96)
        wide_columns<F, 96>(above, below, blocks, packed, units, room, table, total);
    else
        wide_columns<F, 128>(above, below, blocks, packed, units, room, table, total);
}

template <int F> __device__ __forceinline__ void wide(const WideArgs &a) {
    extern __shared__ __align__(128) uint4 wide_memory[];
    __shared__ u32 places[WIDE_VECTORS];
    __shared__ float weights[WIDE_VECTORS];
    __shared__ WideTarget kept; // registers are short until all is summed
    float total[64];
    {
        enter();
        WideRows rows;
        Packed packed;
        WideTarget target;
        if (!(a.items ? wide_item(a, rows, packed, target, places, weights) : wide_product(a, rows, packed, target, places))) return;
        target.scale = unscale(F);
        if (threadIdx.x == 0) kept = target;
        Iq2Table *table = (Iq2Table *)wide_memory;
        u8 *room = (u8 *)(F == IQ2_XXS ? table + 1 : table), *behind = room + WIDE_RING + WIDE_DEPTH * WIDE_WARPS * TILE_BYTES<F>;
        u32 blocks = rows.above.cols / 256;
        if (F == IQ2_XXS) fill(*table);
        __syncthreads();
        if constexpr (F == IQ2_XXS) {
            float *units = (float *)behind;
            for (u32 i = threadIdx.x; i < blocks * WIDE_VECTORS; i += blockDim.x) units[i] = a.units[(u64)(places[i % WIDE_VECTORS] / (a.used + 1)) * blocks + i / WIDE_VECTORS];
            __syncthreads();
            wide_some<F>(rows, target.count, packed, WideStagedUnits{units}, room, table, total);
        } else if constexpr (F == WHOLE_Q2_K) {
            wide_some<F>(rows, target.count, packed, WidePairUnits{places, a.inner, blocks, behind}, room, nullptr, total);
        } else {
            wide_some<F>(rows, target.count, packed, WideNoUnits(), room, nullptr, total);
        }
    }
    wide_store(total, kept, places, weights, a.middle);
}

#define WIDE_BODY(F) wide<F>(a)
#else
#define WIDE_BODY(F)
#endif

#define WIDE_KERNEL(NAME, F) \
    extern "C" __global__ void __launch_bounds__(256, 1) NAME(const __grid_constant__ WideArgs a) { WIDE_BODY(F); }

WIDE_KERNEL(wide_f16, F16)
WIDE_KERNEL(wide_q8_0, Q8_0)
WIDE_KERNEL(wide_fp8, FP8)
WIDE_KERNEL(wide_mxfp4, MXFP4)
WIDE_KERNEL(wide_fp4, FP4)
WIDE_KERNEL(wide_iq2_xxs, IQ2_XXS)
WIDE_KERNEL(wide_q2_k, Q2_K)
WIDE_KERNEL(wide_whole_q2_k, WHOLE_Q2_K)
WIDE_KERNEL(wide_q4_k, Q4_K)
