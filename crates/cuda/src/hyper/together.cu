// Hyper-connections for a few rows, in one launch: the blocks of a row are a cluster. They run at the same
// time by the card's promise, so they may wait for each other, and they write into each other's memory.

// Clusters of more blocks no card has.
static const u32 MOST_BLOCKS = 16;

// Says that this block runs; waits until all blocks of the cluster have said it.
__device__ __forceinline__ void arrive() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
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

extern "C" __global__ void __launch_bounds__(256) hyper_together(const HyperArgs a) {
    __shared__ __align__(16) float v[4 * CHUNK];
    __shared__ float sums[MOST_BLOCKS * SUMS], groups[GROUPS];
    __shared__ u64 sums_box, groups_box;
    const u32 parts = CHUNK / 128; // whose squares are summed up, in a chunk
    u32 chunk = blockIdx.x, row = blockIdx.y, first = chunk * CHUNK;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 d = first + 4 * threadIdx.x;
    bool reads = threadIdx.x < CHUNK / 4 && d < a.hidden;
    invite();
    if (threadIdx.x < GROUPS) groups[threadIdx.x] = 0.0f;
    if (threadIdx.x == 0) {
        open_box(&sums_box, a.chunks * SUMS * 4);
        open_box(&groups_box, a.chunks * parts * 4);
    }
    arrive(); // from here on others may write here
    Share w;
    load_share(a, first, w);
    if (reads) prefetch(a.norm + d);
    if (threadIdx.x == 0) prefetch(a.base), prefetch(a.scale);
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
    if (lane < a.chunks) {
        float *mine = sums + chunk * SUMS;
#pragma unroll
        for (u32 j = 0; j < 3; j++) post(lane, mine + 3 * warp + j, sum[0][j], &sums_box);
        post(lane, mine + SQUARES + warp, squares, &sums_box);
    }

    // The longest chain of all goes beside the rest.
    bool mixes = warp == 7 && chunk == a.chunks - 1 && !a.head;
    if (warp >= parts && !mixes) return;
    float inverse;
    wait_for(&sums_box);
    float said = ended(a, sums, inverse);
    if (mixes) return store_mix(a, row, said);
    if (threadIdx.x == 0 && chunk == 0 && !sound(inverse)) report(a.fault, a.stage, row);
    float weight = __fadd_rn(gate(said), a.hc_eps);
    float4 y = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        float pre = __shfl_sync(FULL, weight, i);
        if (i < a.n) fused(y, pre, *(const float4 *)(v + i * CHUNK + 4 * threadIdx.x));
    }
    squares = warp_sum(square4(y));
    if (lane < a.chunks) post(lane, groups + chunk * parts + warp, squares, &groups_box);
    wait_for(&groups_box); // the block may not end before all has come
    u32 target = a.head ? a.rows[row].want : row;
    float scale = input_scale(a, groups);
    if (reads && target != NOWHERE) store_input(a, target, d, y, scale, __ldg((const float4 *)(a.norm + d)));
}
