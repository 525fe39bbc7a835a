// Attention on tensor cores. A block takes some heads of one row of the round, and tiles of what the
// row sees. What is computed for a tile follows from the row's position alone, and tiles are put
// together by one formula in their order: by one block that walks over all of them, or by the last of
// the blocks that took a part each. So company and chunks change no bit.

// ------------------------------------------------------------------ the end of a row

// Sums to values: divided, turned back, written; through shared memory, where neither queries nor
// rows are needed any more, so that neighbours are written together.
template <int N> __device__ __forceinline__ void finish(const AttendArgs &a, AttendShared<N> &m, const Sums<N> &sums, u32 r, u32 first_head) {
    constexpr u32 line = 516;
    static_assert(8 * N * line * sizeof(float) <= sizeof(m.queries) + sizeof(m.tile), "room for the sums");
    u32 lane = threadIdx.x % 32, dim = a.format.values, nope = dim - a.format.rope;
    float *all = (float *)m.queries, *mine = all + lane % 4 * 2 * line + threadIdx.x / 32 * 64 + lane / 4;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < N; j++) {
            float *to = mine + 8 * j * line + 16 * i;
            to[0] = sums[i][j][0], to[line] = sums[i][j][1];
            to[8] = sums[i][j][2], to[line + 8] = sums[i][j][3];
        }
    __syncthreads();
    const float2 *turns = a.turns + ((u64)r * 4 + a.turn) * (a.format.rope / 2);
    u32 heads = min(8u * N, a.heads - first_head);
    u64 begin = ((u64)r * a.heads + first_head) * dim;
    for (u32 at = 4 * lane; at < dim; at += 128) {
        float4 t = make_float4(1.0f, 0.0f, 1.0f, 0.0f);
        if (at >= nope) t = *(const float4 *)(turns + (at - nope) / 2);
        for (u32 head = threadIdx.x / 32; head < heads; head += 8) {
            float4 v = *(const float4 *)(all + head * line + at);
            float norm = m.norms[head];
            float2 low = turned(__fmul_rn(v.x, norm), __fmul_rn(v.y, norm), make_float2(t.x, -t.y));
            float2 high = turned(__fmul_rn(v.z, norm), __fmul_rn(v.w, norm), make_float2(t.z, -t.w));
            v = make_float4(low.x, low.y, high.x, high.y);
            u64 target = begin + head * dim + at;
            if (a.out) *(float4 *)(a.out + target) = v;
            if (a.half) *(uint2 *)(a.half + target) = make_uint2(pair_of(v.x, v.y), pair_of(v.z, v.w));
        }
    }
}

// Leaves a part's sums for whoever comes last; true in that one block, when all are there.
template <int N> __device__ __forceinline__ bool leave_part(const AttendArgs &a, AttendShared<N> &m, const Sums<N> &sums, float *mine, u32 warps, u32 parts) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (warp < warps) {
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < N; j++)
                *(float4 *)(mine + (((warp * 4 + i) * N + j) * 32 + lane) * 4) = make_float4(sums[i][j][0], sums[i][j][1], sums[i][j][2], sums[i][j][3]);
    }
    if (threadIdx.x < 8 * N) *(float2 *)(mine + warps * N * 512 + threadIdx.x * 2) = make_float2(m.met[threadIdx.x].largest, m.met[threadIdx.x].total);
    __syncthreads();
    if (threadIdx.x == 0) {
        u32 *arrived = a.arrivals + (u64)blockIdx.z * gridDim.y + blockIdx.y;
        __threadfence(); // for all threads of the block: the barrier stands before it, and behind the next
        m.last = atomicAdd(arrived, 1) + 1 == parts;
        if (m.last) {
            *arrived = 0; // the next layer counts from zero
            __threadfence();
        }
    }
    __syncthreads();
    return m.last;
}

// Puts parts together in their order, the sink before them, which waits where the norms will be.
template <int N> __device__ __forceinline__ void join_parts(AttendShared<N> &m, Sums<N> &sums, const float *first, u32 stride, u32 warps, u32 parts) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float2 *shares = (float2 *)m.scores;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < parts * 8 * N; i += 256)
        shares[i] = __ldcg((const float2 *)(first + (u64)(i / (8 * N)) * stride + warps * N * 512) + i % (8 * N));
    __syncthreads();
    if (threadIdx.x < 8 * N) {
        Softmax s{m.norms[threadIdx.x], 1.0f};
#pragma unroll 4
        for (u32 i = threadIdx.x; i < parts * 8 * N; i += 8 * N) {
            float2 part = shares[i];
            shares[i] = merge(s, part.x, part.y);
        }
        m.norms[threadIdx.x] = 1.0f / s.total;
    }
    __syncthreads();
    if (warp >= warps) return;
#pragma unroll (N == 1 ? 3 : 1)
    for (u32 p = 0; p < parts; p++)
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < N; j++) {
                float4 v = __ldcg((const float4 *)(first + (u64)p * stride + (((warp * 4 + i) * N + j) * 32 + lane) * 4));
                float more[4] = {v.x, v.y, v.z, v.w};
                merge_sums(sums[i][j], more, *(const float4 *)(shares + p * 8 * N + 8 * j + lane % 4 * 2));
            }
}

// ------------------------------------------------------------------ kernels

// Where the row lies that is seen as the `index`th; nowhere beyond the last.
__device__ __forceinline__ const u8 *row_place(const AttendArgs &a, const Row &row, const Sight &s, u32 r, u32 index) {
    if (index < s.window_rows) return window_place(a, row, s, r, index);
    u32 c = index - s.window_rows;
    if (c >= s.compressed) return nullptr;
    if (s.chosen) c = a.chosen[(u64)r * a.top_k + c];
    return page_row(row.pages, a.ratio, (u32)a.row_at, c, a.format.bytes);
}

// Where the rows of a tile lie. The row is read anew, for registers are dearer.
__device__ __forceinline__ const u8 *tile_place(const AttendArgs &a, u32 r, u32 tile) {
    const Row row = a.rows[r];
    return row_place(a, row, sight(a, row.position, SPAN), r, tile * SPAN + threadIdx.x);
}

// Brings memory near, of which nothing is wanted yet.
__device__ __forceinline__ void touch(const void *p) {
    asm volatile("{ .reg .u32 nothing; ld.global.u32 nothing, [%0]; }" ::"l"(p));
}

// WHOLE: a block takes all parts of its row, each of which must be one tile.
template <int N, bool WHOLE> __device__ __forceinline__ void attend_heads(const AttendArgs &a) {
    extern __shared__ uint4 attending[];
    AttendShared<N> &m = *(AttendShared<N> *)attending;
    invite();
    u32 r = a.first + blockIdx.z, first_head = blockIdx.y * 8 * N;
    // What the host tells of a round lies there before its first kernel: rows and tables of pages need
    // no waiting.
    u32 position = a.rows[r].position;
    const Sight sees = sight(a, position, SPAN);
    if (a.ratio && threadIdx.x <= position / PAGE_TOKENS / 16) touch(a.rows[r].pages + threadIdx.x * 16);
    u32 visible = sees.window_rows + sees.compressed, tiles = (visible + SPAN - 1) / SPAN;
    u32 tile = WHOLE ? 0 : blockIdx.x * sees.tiles_per_part, end = WHOLE ? tiles : min(tile + sees.tiles_per_part, tiles);
    u32 width = (a.format.values + 15) / 16 * 16, warps = (width + 63) / 64;
    bool fast = usual(a.format);
    bool known = !sees.chosen || tile * SPAN + threadIdx.x < sees.window_rows;
    if (threadIdx.x < SPAN && known) {
        const u8 *place = tile_place(a, r, tile);
        m.places[tile % 2][threadIdx.x] = place;
        // What a step before left there may be far away by now.
        for (u32 at = 0; !WHOLE && place && at < a.format.bytes; at += 128) prefetch(place + at);
    }
    if (!WHOLE && threadIdx.x < 8 * N) m.norms[threadIdx.x] = sink(a, first_head + threadIdx.x).largest;
    await();
    if (tile >= end) return;

    if (threadIdx.x < SPAN && !known) m.places[tile % 2][threadIdx.x] = tile_place(a, r, tile);
    __syncthreads();
    Fetched raw;
    if (fast && N == 8) ask_tile(m.places[tile % 2], (const u8 *)a.rows, m.raw);
    if (fast && N < 8) fetch(raw, m.places[tile % 2]);
    stage_queries(a, r, first_head, 8 * N, width, m.queries);

    // A whole row begins with the sink. A part begins with nothing, and the first tile is added to a
    // zero that changes no sign.
    if (threadIdx.x < 8 * N) m.met[threadIdx.x] = WHOLE ? sink(a, first_head + threadIdx.x) : Softmax{-INFINITE, 0.0f};
    Sums<N> sums;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < N; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) sums[i][j][c] = WHOLE ? 0.0f : -0.0f;

    for (; tile < end; tile++) {
        u32 side = tile % 2;
        const u8 *next = nullptr;
        if (tile + 1 < end && threadIdx.x < SPAN) next = tile_place(a, r, tile + 1);
        if (fast && N == 8) await_tile();
        __syncthreads();
        if (fast && N == 8)
            decode_asked(m.raw, m.tile);
        else if (fast)
            decode_tile(raw, m.tile);
        else
            decode_any(a.format, m.places[side], width, m.tile);
        if (threadIdx.x < SPAN) m.places[side ^ 1][threadIdx.x] = next;
        __syncthreads();
        if (fast && N == 8 && tile + 1 < end) ask_tile(m.places[side ^ 1], (const u8 *)a.rows, m.raw);
        score_tile<N>(m, width);
        __syncthreads();
        weigh_tile<N>(m, visible - tile * SPAN, a.scale);
        __syncthreads();
        // A part is one tile nearly always, and its registers are better spent on two blocks at a time.
        if (WHOLE && fast && N < 8 && tile + 1 < end) fetch(raw, m.places[side ^ 1]);
        if (threadIdx.x / 32 < warps) add_tile<N>(m, sums);
        if (!WHOLE && fast && tile + 1 < end) fetch(raw, m.places[side ^ 1]);
    }

    if (WHOLE) {
        if (threadIdx.x < 8 * N) m.norms[threadIdx.x] = 1.0f / m.met[threadIdx.x].total;
        __syncthreads();
    } else {
        // Found anew: registers are dearer.
        u32 stride = N * (warps * 512 + 16), parts = sight(a, a.rows[r].position, SPAN).parts;
        float *first = a.partial + ((u64)blockIdx.z * gridDim.y + blockIdx.y) * PARTS * stride;
        if (!leave_part<N>(a, m, sums, first + (u64)blockIdx.x * stride, warps, parts)) return;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int c = 0; c < 4; c++) sums[i][j][c] = 0.0f;
        join_parts<N>(m, sums, first, stride, warps, parts);
    }
    finish<N>(a, m, sums, r, first_head);
}

// Blocks of the smaller kernels to a multiprocessor: two have shared memory and registers enough on Hopper.
#if __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1000
static const u32 ATTEND_RESIDENT = 2;
#else
static const u32 ATTEND_RESIDENT = 1;
#endif

extern "C" __global__ void __launch_bounds__(256, ATTEND_RESIDENT) attend_8(const AttendArgs a) { attend_heads<1, false>(a); }
extern "C" __global__ void __launch_bounds__(256, ATTEND_RESIDENT) attend_16(const AttendArgs a) { attend_heads<2, false>(a); }
extern "C" __global__ void __launch_bounds__(256, 1) attend_16_whole(const AttendArgs a) { attend_heads<2, true>(a); }
extern "C" __global__ void __launch_bounds__(256, 1) attend_64_whole(const AttendArgs a) { attend_heads<8, true>(a); }
