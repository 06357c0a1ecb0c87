// A library for LD_PRELOAD: the system starts VIVIT_TEST_THREADS threads, and then no more (EAGAIN).
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* how, void* (*start)(void*), void* with) {
    static std::atomic<int> left{std::atoi(std::getenv("VIVIT_TEST_THREADS"))};
    if (left-- <= 0) return EAGAIN;
    using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
    static const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
    return create(thread, how, start, with);
}
