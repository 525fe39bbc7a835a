// Hyper-connections for a few rows, in one launch: the blocks of a row are a cluster. They run at the same
// time by the card's promise, so they may wait for each other, and they write into each other's memory.

// Clusters of more blocks no card has.
static const u32 MOST_BLOCKS = 16;

// The bound is one of registers: a block of them finds room beside two blocks of the kernel before it, and can
// fetch what it needs while those still run.
extern "C" __global__ void __launch_bounds__(320, RESIDENT(2)) hyper_together(const HyperArgs a) {
    __shared__ __align__(16) float v[4 * CHUNK], sums[MOST_BLOCKS * SUMS];
    __shared__ float groups[GROUPS];
    __shared__ float4 norm[CHUNK / 4]; // each for the thread that asks for it: registers are dear
    __shared__ u64 sums_box, groups_box;
    const u32 parts = CHUNK / 128; // whose squares are summed up, in a chunk
    // Those of no block are not written by others.
    if (threadIdx.x >= a.chunks * parts && threadIdx.x < GROUPS) groups[threadIdx.x] = 0.0f;
    if (threadIdx.x == 0) {
        open_box(&sums_box, a.chunks * SUMS * 4);
        open_box(&groups_box, a.chunks * parts * 4);
    }
    arrive(); // from here on others may write here
    load_ending(a); // only brings it near
    // Weights may have pushed the streams out since they were written.
    ask_for_streams(a, blockIdx.y, blockIdx.x * CHUNK);

#pragma unroll 1
    for (u32 pass = first_pass(); pass < 2; pass++) {
        u32 chunk = blockIdx.x, row = blockIdx.y;
        // Nothing that follows from them is kept from one pass to the next.
        asm volatile("" : "+r"(chunk), "+r"(row));
        u32 first = chunk * CHUNK, d = first + 4 * thread_anew();
        bool reads = threadIdx.x < CHUNK / 4 && d < a.hidden;
        Share w = {};
        if (pass) {
            load_share(a, first, w);
            if (reads) asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(norm + threadIdx.x)), "l"(a.norm + d) : "memory");
            await();
            invite();
        }
        float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (pass) x = mixed(a, row, first);
        __syncthreads(); // the streams are read by all before one is written
        float squares = place(a, row, first, x, v, pass && a.write), sum[1][3];
        __syncthreads();
        if (a.function.format == F32)
            project<F32, 1>(a, w, first, v, sum);
        else if (a.function.format == F16)
            project<F16, 1>(a, w, first, v, sum);
        else
            project<BF16, 1>(a, w, first, v, sum);
        const Ending ending = load_ending(a);
        u32 thread = thread_anew(), lane = thread % 32, warp = thread / 32;
        if (pass) wait_for_all();
        if (pass && lane < a.chunks) post(lane, sums + chunk * SUMS + 4 * warp, make_float4(sum[0][0], sum[0][1], sum[0][2], squares), &sums_box);

        // The longest chain of all goes beside the rest.
        bool mixes = warp == 7 && chunk == a.chunks - 1 && !a.head;
        if (warp >= parts && !mixes) continue;
        float inverse;
        if (pass) wait_for(&sums_box);
        float said = ended(a, ending, sums, inverse);
        if (mixes) {
            store_mix(a, row, said, pass);
            continue;
        }
        if (pass && threadIdx.x == 0 && chunk == 0 && !sound(inverse)) report(a.fault, a.stage, row);
        float weight = read_weight(a, row, said, pass && warp == 0 && chunk == 0);
        float4 y = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            fused(y, __shfl_sync(FULL, weight, i), *(const float4 *)(v + i * CHUNK + 4 * threadIdx.x));
        squares = warp_sum(square4(y));
        if (pass && lane < a.chunks) post(lane, groups + chunk * parts + warp, squares, &groups_box);
        if (pass) wait_for(&groups_box); // the block may not end before all has come
        u32 target = a.head ? a.rows[row].want : row;
        float scale = input_scale(a, groups);
        asm volatile("cp.async.wait_all;" ::: "memory");
        if (pass && reads && target != NOWHERE) store_input(a, target, d, y, scale, norm[threadIdx.x]);
    }
}
