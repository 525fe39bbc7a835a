// Hyper-connections for a few rows, in one launch: the blocks of a row, or of two rows, are a cluster. They run at
// the same time by the card's promise, so they may wait for each other, and they write into each other's memory.

// Clusters of more blocks no card has.
static const u32 MOST_BLOCKS = 16;

// Sums over a warp, of one row in every lane; of two rows each in its half of the lanes, at the price of one: what
// `warp_sum` adds first are the halves.
__device__ __forceinline__ float sum_of_rows(const float (&x)[1]) { return warp_sum(x[0]); }

__device__ __forceinline__ float sum_of_rows(const float (&x)[2]) {
    bool second = threadIdx.x & 16;
    float sum = (second ? x[1] : x[0]) + __shfl_xor_sync(FULL, second ? x[0] : x[1], 16);
#pragma unroll
    for (int o = 8; o; o >>= 1) sum += __shfl_xor_sync(FULL, sum, o);
    return sum;
}

// Whether there is such a row, and which is taken in its place if not: a cluster of two rows does the last of an odd
// number twice, and keeps it once.
template <int B> __device__ __forceinline__ bool is_there(const HyperArgs &a, u32 row) { return B == 1 || row < a.count; }

template <int B> __device__ __forceinline__ u32 in_place_of(const HyperArgs &a, u32 row) { return B == 1 ? row : min(row, a.count - 1); }

// Which four dimensions of a chunk a thread makes the input of, one row's threads behind the other's.
template <int B> __device__ __forceinline__ u32 quad_of(u32 thread) { return B == 1 ? thread : thread % (CHUNK / 4); }

// A cluster takes B rows, whose outputs are in parts or not.
template <int B, bool PARTS> __device__ __forceinline__ void hyper_cluster(const HyperArgs &a) {
    __shared__ __align__(16) float v[B * 4 * CHUNK], sums[B * MOST_BLOCKS * SUMS], parts_of_out[PARTS ? B * MOST_PARTS * CHUNK : 1];
    __shared__ float groups[B * GROUPS];
    __shared__ float4 norm[B * CHUNK / 4]; // each for the thread that asks for it: registers are dear
    __shared__ u64 sums_box, groups_box, parts_box;
    __shared__ Found found[B];
    const u32 parts = CHUNK / 128; // whose squares are summed up, in a chunk
    // Those of no block are not written by others.
    if (threadIdx.x % GROUPS >= a.chunks * parts && threadIdx.x < B * GROUPS) groups[threadIdx.x] = 0.0f;
    if (threadIdx.x == 0) {
        open_box(&sums_box, B * a.chunks * SUMS * 4);
        open_box(&groups_box, B * a.chunks * parts * 4);
        if (PARTS) open_parts_box(&parts_box);
    }
    arrive(); // from here on others may write here
    if (PARTS) __syncthreads();
    load_ending(a, threadIdx.x % 32); // only brings it near
    // Weights may have pushed the streams out since they were written.
#pragma unroll
    for (u32 b = 0; b < B; b++) ask_for_streams(a, in_place_of<B>(a, B * blockIdx.y + b), blockIdx.x * CHUNK);

    // Blocks that find room only when the kernel before ends have no time to rehearse.
#pragma unroll 1
    for (u32 pass = B == 1 && !PARTS ? first_pass() : 1; pass < 2; pass++) {
        u32 chunk = blockIdx.x, top = B * blockIdx.y;
        // Nothing that follows from them is kept from one pass to the next.
        asm volatile("" : "+r"(chunk), "+r"(top));
        u32 first = chunk * CHUNK, d = first + 4 * quad_of<B>(thread_anew());
        bool reads = threadIdx.x < B * CHUNK / 4 && d < a.hidden;
        Share w = {};
        if (pass) {
            load_share(a, first, w);
            if (reads) asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(norm + thread_anew())), "l"(a.norm + d) : "memory");
            await();
            invite();
        }
        float4 x[B] = {};
        if (pass) {
            u32 rows[B];
#pragma unroll
            for (u32 b = 0; b < B; b++) rows[b] = in_place_of<B>(a, top + b);
            mixed<B, PARTS>(a, rows, first, parts_of_out, &parts_box, x);
        }
        __syncthreads(); // the streams are read by all before one is written
        float squares[B], sum[B][3];
#pragma unroll
        for (u32 b = 0; b < B; b++) squares[b] = place(a, top + b, first, x[b], v + b * 4 * CHUNK, pass && a.write && is_there<B>(a, top + b));
        __syncthreads();
        if (a.function.format == F32)
            project<F32, B>(a, w, first, v, sum);
        else if (a.function.format == F16)
            project<F16, B>(a, w, first, v, sum);
        else
            project<BF16, B>(a, w, first, v, sum);
        u32 thread = thread_anew(), lane = thread % 32, warp = thread / 32;
        const Ending ending = load_ending(a, lane);
        float each[3][B];
#pragma unroll
        for (u32 b = 0; b < B; b++)
#pragma unroll
            for (u32 j = 0; j < 3; j++) each[j][b] = sum[b][j];
        float4 letter = make_float4(sum_of_rows(each[0]), sum_of_rows(each[1]), sum_of_rows(each[2]), sum_of_rows(squares));
        // Each row's lanes send its sums.
        u32 to = lane % (32 / B), of = lane / (32 / B) * (MOST_BLOCKS * SUMS);
        if (pass) wait_for_all();
        if (pass && to < a.chunks) post(to, sums + of + chunk * SUMS + 4 * warp, letter, &sums_box);

        // The first warps make the rows' inputs. The longest chain of all goes beside the rest.
        bool mixes = warp >= 8 - B && chunk == a.chunks - 1 && !a.head;
        if (warp >= B * parts && !mixes) continue;
        u32 b = B == 1 ? 0 : mixes ? 7 - warp : warp / parts, part = B == 1 ? warp : warp % parts, row = top + b;
        bool live = pass && is_there<B>(a, row);
        float inverse;
        if (pass) wait_for(&sums_box);
        float said = ended(a, ending, sums + b * (MOST_BLOCKS * SUMS), lane, inverse);
        if (mixes) {
            store_mix(a, row, said, live);
            continue;
        }
        bool tells = live && part == 0 && chunk == 0;
        if (tells && lane == 0 && !sound(inverse)) report(a.fault, a.stage, row);
        float weight = read_weight(a, row, said, tells);
        float4 y = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            fused(y, __shfl_sync(FULL, weight, i), *(const float4 *)(v + (4 * b + i) * CHUNK + 4 * quad_of<B>(threadIdx.x)));
        float of_group = warp_sum(square4(y));
        if (pass && lane < a.chunks) post(lane, groups + b * GROUPS + chunk * parts + part, of_group, &groups_box);
        if (pass) wait_for(&groups_box); // the block may not end before all has come
        u32 target = !live ? NOWHERE : a.head ? a.rows[row].want : row;
        float scale = input_scale(a, groups + b * GROUPS);
        asm volatile("cp.async.wait_all;" ::: "memory");
        if (reads && target != NOWHERE) store_input(a, target, chunk * CHUNK + 4 * quad_of<B>(thread_anew()), y, scale, norm[thread], found[b], b);
    }
}

// The bound is one of registers: a block of them finds room beside two blocks of the kernel before it, and can
// fetch what it needs while those still run.
extern "C" __global__ void __launch_bounds__(320, RESIDENT(2)) hyper_together(const HyperArgs a) { hyper_cluster<1, false>(a); }
extern "C" __global__ void __launch_bounds__(320, RESIDENT(2)) hyper_together_parts(const HyperArgs a) { hyper_cluster<1, true>(a); }

// Half as many clusters: each has to find room in one part of the card, and there are seven or eight of those. The
// function's share is read once for both rows.
extern "C" __global__ void __launch_bounds__(256, RESIDENT(2)) hyper_together_2(const HyperArgs a) { hyper_cluster<2, false>(a); }
extern "C" __global__ void __launch_bounds__(256, RESIDENT(2)) hyper_together_2_parts(const HyperArgs a) { hyper_cluster<2, true>(a); }
