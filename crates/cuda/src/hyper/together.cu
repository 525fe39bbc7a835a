// Hyper-connections for a few rows, in one launch: the blocks of a row are a cluster. They run at the same
// time by the card's promise, so they may wait for each other, and they write into each other's memory.

// Clusters of more blocks no card has.
static const u32 MOST_BLOCKS = 16;

__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// Writes to the same place of shared memory in another block of the cluster.
__device__ __forceinline__ void tell(u32 block, float *place, float value) {
#if __CUDA_ARCH__ >= 900
    u32 there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"((u32)__cvta_generic_to_shared(place)), "r"(block));
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(value) : "memory");
#endif
}

extern "C" __global__ void __launch_bounds__(256) hyper_together(const HyperArgs a) {
    __shared__ __align__(16) float v[4 * CHUNK];
    __shared__ float sums[MOST_BLOCKS * SUMS], groups[GROUPS];
    u32 chunk = blockIdx.x, row = blockIdx.y, first = chunk * CHUNK;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 d = first + 4 * threadIdx.x;
    bool reads = threadIdx.x < CHUNK / 4 && d < a.hidden;
    invite();
    if (threadIdx.x < GROUPS) groups[threadIdx.x] = 0.0f;
    cluster_arrive(); // from here on others may write here
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
    cluster_wait(); // all blocks are there
    if (lane < a.chunks) {
        float *mine = sums + chunk * SUMS;
#pragma unroll
        for (u32 j = 0; j < 3; j++) tell(lane, mine + 3 * warp + j, sum[0][j]);
        tell(lane, mine + SQUARES + warp, squares);
    }
    cluster_arrive();
    cluster_wait();

    float4 y = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (warp < CHUNK / 128) {
        float inverse, said = ended(a, sums, inverse);
        if (threadIdx.x == 0 && chunk == 0 && !sound(inverse)) report(a.fault, a.stage, row);
        float weight = __fadd_rn(gate(said), a.hc_eps);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            float pre = __shfl_sync(FULL, weight, i);
            if (i < a.n) fused(y, pre, *(const float4 *)(v + i * CHUNK + 4 * threadIdx.x));
        }
        float squares = warp_sum(square4(y));
        if (lane < a.chunks) tell(lane, groups + chunk * (CHUNK / 128) + warp, squares);
    }
    cluster_arrive();
    // The longest chain of all, beside the rest.
    if (warp == 7 && chunk == a.chunks - 1 && !a.head) {
        float inverse;
        store_mix(a, row, ended(a, sums, inverse));
    }
    __syncwarp();
    cluster_wait();
    u32 target = a.head ? a.rows[row].want : row;
    if (warp >= CHUNK / 128 || target == NOWHERE) return;
    float scale = input_scale(a, groups);
    if (reads) store_input(a, target, d, y, scale, __ldg((const float4 *)(a.norm + d)));
}
