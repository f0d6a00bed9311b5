/* Loaded with LD_PRELOAD: the wall clock of one process, shifted by the seconds that stand in the file CLOCK_SHIFT.
 *
 * The file is mapped, so a test steps the clock by writing eight bytes, as NTP or a technician would in one moment.
 * Monotonic clocks are left alone: a step does not touch them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *shift_s;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_SHIFT");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *shift_s, PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) abort(); /* a test of a clock that does not step would prove nothing */
    shift_s = at;
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (!result && clock == CLOCK_REALTIME) now->tv_sec += *shift_s;
    return result;
}
