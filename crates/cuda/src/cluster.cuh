// Blocks of a cluster, which run at the same time by the card's promise: they may wait for each other, and
// write into each other's memory. No card before 9.0 has clusters, and none is asked for them.

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
// a barrier behind ordinary writes, that does not wait for what else was written to reach memory.
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
