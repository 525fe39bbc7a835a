// Hyper-connections for a few rows, in one launch: the blocks of a row are a cluster. They run at the same
// time by the card's promise, so they may wait for each other, and they write into each other's memory.

// Clusters of more blocks no card has.
static const u32 MOST_BLOCKS = 16;

// Says that this block runs and its boxes are open, but nothing of other writes, for which it would have to
// wait; waits until all blocks of the cluster have said it.
__device__ __forceinline__ void arrive() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ void wait_for_all() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// A letter box in shared memory: it counts the bytes that still have to come from the blocks of the cluster.
__device__ __forceinline__ void open_box(u64 *box, u32 bytes) {
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(box)) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(box)), "r"(bytes) : "memory");
#endif
}

// Writes to the same place in the shared memory of a block of the cluster, and to its box that it came. Unlike
// a barrier behind ordinary writes, that does not wait for the streams to reach memory.
__device__ __forceinline__ void post(u32 block, const float *place, float value, const u64 *box) {
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n"
                 ".reg .u32 place, box;\n"
                 "mapa.shared::cluster.u32 place, %0, %3;\n"
                 "mapa.shared::cluster.u32 box, %1, %3;\n"
                 "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [place], %2, [box];\n"
                 "}" ::"r"(shared_address(place)), "r"(shared_address(box)), "r"(__float_as_uint(value)), "r"(block) : "memory");
#endif
}

// The same with four neighbours at once: what counts is how many letters a block gets.
__device__ __forceinline__ void post(u32 block, const float *place, float4 value, const u64 *box) {
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n"
                 ".reg .u32 place, box;\n"
                 "mapa.shared::cluster.u32 place, %0, %6;\n"
                 "mapa.shared::cluster.u32 box, %1, %6;\n"
                 "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [place], {%2, %3, %4, %5}, [box];\n"
                 "}" ::"r"(shared_address(place)), "r"(shared_address(box)), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w), "r"(block) : "memory");
#endif
}

// Waits until all has come.
__device__ __forceinline__ void wait_for(u64 *box) {
#if __CUDA_ARCH__ >= 900
    u32 come = 0;
    while (!come)
        asm volatile("{\n"
                     ".reg .pred come;\n"
                     "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 come, [%1], 0;\n"
                     "selp.u32 %0, 1, 0, come;\n"
                     "}" : "=r"(come) : "r"(shared_address(box)) : "memory");
#endif
}

// The bound is one of registers: a block of them finds room beside two blocks of the kernel before it, and can
// fetch what it needs while those still run.
extern "C" __global__ void __launch_bounds__(320, RESIDENT(2)) hyper_together(const HyperArgs a) {
    __shared__ __align__(16) float v[4 * CHUNK], sums[MOST_BLOCKS * SUMS];
    __shared__ float groups[GROUPS];
    __shared__ u64 sums_box, groups_box;
    const u32 parts = CHUNK / 128; // whose squares are summed up, in a chunk
    u32 chunk = blockIdx.x, row = blockIdx.y, first = chunk * CHUNK;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 d = first + 4 * threadIdx.x;
    bool reads = threadIdx.x < CHUNK / 4 && d < a.hidden;
    invite();
    // Those of no block are not written by others.
    if (threadIdx.x >= a.chunks * parts && threadIdx.x < GROUPS) groups[threadIdx.x] = 0.0f;
    if (threadIdx.x == 0) {
        open_box(&sums_box, a.chunks * SUMS * 4);
        open_box(&groups_box, a.chunks * parts * 4);
    }
    arrive(); // from here on others may write here
    Share w;
    load_share(a, first, w);
    const Ending ending = load_ending(a);
    float4 norm = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (reads) norm = early((const float4 *)(a.norm + d));
    // Weights may have pushed the streams out since they were written.
    ask_for_streams(a, row, first);
    await();

    float4 x = mixed(a, row, first);
    __syncthreads(); // the streams are read by all before one is written
    float squares = place(a, row, first, x, v), sum[1][3];
    __syncthreads();
    if (a.function.format == F32)
        project<F32, 1>(a, w, first, v, sum);
    else if (a.function.format == F16)
        project<F16, 1>(a, w, first, v, sum);
    else
        project<BF16, 1>(a, w, first, v, sum);
    wait_for_all();
    if (lane < a.chunks) post(lane, sums + chunk * SUMS + 4 * warp, make_float4(sum[0][0], sum[0][1], sum[0][2], squares), &sums_box);

    // The longest chain of all goes beside the rest.
    bool mixes = warp == 7 && chunk == a.chunks - 1 && !a.head;
    if (warp >= parts && !mixes) return;
    float inverse;
    wait_for(&sums_box);
    float said = ended(a, ending, sums, inverse);
    if (mixes) return store_mix(a, row, said);
    if (threadIdx.x == 0 && chunk == 0 && !sound(inverse)) report(a.fault, a.stage, row);
    float weight = read_weight(a, row, said, warp == 0 && chunk == 0);
    float4 y = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (u32 i = 0; i < 4; i++)
        fused(y, __shfl_sync(FULL, weight, i), *(const float4 *)(v + i * CHUNK + 4 * threadIdx.x));
    squares = warp_sum(square4(y));
    if (lane < a.chunks) post(lane, groups + chunk * parts + warp, squares, &groups_box);
    wait_for(&groups_box); // the block may not end before all has come
    u32 target = a.head ? a.rows[row].want : row;
    float scale = input_scale(a, groups);
    if (reads && target != NOWHERE) store_input(a, target, d, y, scale, norm);
}
