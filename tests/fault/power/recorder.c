/* Records what a process does to the files below one directory, in order, for power_cut.py to replay.
 *
 * Loaded with LD_PRELOAD; POWER_DIR names the directory, POWER_LOG the file that the record goes to. Calls that change
 * a file or a name, and the syncs that make such changes last, are passed on and then written down:
 *
 *     u8 op | u32 path length | path | u64 a | u64 b | u64 data length | data
 *
 * create (path), write (a = offset, data), truncate (a = size), sync (path), rename (data = the new path), unlink
 * (path). Memory that is mapped (SQLite's -shm) is not recorded: it does not outlive a power cut, and SQLite makes it
 * anew. One lock orders all threads, so the record's order is the order in which the kernel saw the calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, SYNC, RENAME, UNLINK };

#define FILES 4096
static char *names[FILES]; /* by descriptor; NULL: not ours */
static char directory[PATH_MAX];
static int record = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *dir = getenv("POWER_DIR"), *log = getenv("POWER_LOG");
    if (!dir || !log || !realpath(dir, directory)) return;
    record = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int absolute(const char *path, char *out) { /* the directory must exist, the file need not */
    char copy[PATH_MAX], parent[PATH_MAX];
    if (record < 0 || strlen(path) >= PATH_MAX) return 0;
    strcpy(copy, path);
    char *slash = strrchr(copy, '/');
    const char *base = slash ? slash + 1 : copy;
    if (slash) *slash = 0;
    if (!realpath(slash ? (*copy ? copy : "/") : ".", parent)) return 0;
    if (snprintf(out, PATH_MAX, "%s/%s", parent, base) >= PATH_MAX) return 0;
    size_t length = strlen(directory);
    return !strncmp(out, directory, length) && (out[length] == '/' || !out[length]);
}

static void put(const void *data, size_t size) {
    const char *at = data;
    while (size) {
        ssize_t done = syscall(SYS_write, record, at, size);
        if (done <= 0) abort(); /* a record with a hole would prove nothing */
        at += done;
        size -= done;
    }
}

static void note(uint8_t op, const char *path, uint64_t a, const void *data, uint64_t size) {
    char head[1 + 4 + PATH_MAX + 24];
    uint32_t length = strlen(path);
    uint64_t b = 0;
    size_t at = 0;
    head[at++] = op;
    memcpy(head + at, &length, 4), at += 4;
    memcpy(head + at, path, length), at += length;
    memcpy(head + at, &a, 8), at += 8;
    memcpy(head + at, &b, 8), at += 8;
    memcpy(head + at, &size, 8), at += 8;
    put(head, at);
    if (size) put(data, size);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define NAME(fd) ((fd) >= 0 && (fd) < FILES ? names[fd] : NULL)

static int opened(int fd, const char *path, int flags, int there) {
    char full[PATH_MAX];
    if (fd < 0 || fd >= FILES || !absolute(path, full)) return fd;
    free(names[fd]);
    names[fd] = strdup(full);
    if ((flags & O_CREAT) && !there) note(CREATE, full, 0, NULL, 0);
    if ((flags & O_TRUNC) && there) note(TRUNCATE, full, 0, NULL, 0);
    return fd;
}

#define OPEN(name)                                                                   \
    int name(const char *path, int flags, ...) {                                     \
        va_list rest;                                                                \
        va_start(rest, flags);                                                       \
        mode_t mode = (flags & O_CREAT) ? va_arg(rest, mode_t) : 0;                  \
        va_end(rest);                                                                \
        pthread_mutex_lock(&lock);                                                   \
        int there = !access(path, F_OK);                                             \
        int fd = opened(REAL(name)(path, flags, mode), path, flags, there);          \
        pthread_mutex_unlock(&lock);                                                 \
        return fd;                                                                   \
    }
OPEN(open)
OPEN(open64)

int openat(int at, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = (flags & O_CREAT) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    pthread_mutex_lock(&lock);
    int there = !faccessat(at, path, F_OK, 0);
    int fd = REAL(openat)(at, path, flags, mode);
    if (at == AT_FDCWD || *path == '/') opened(fd, path, flags, there);
    pthread_mutex_unlock(&lock);
    return fd;
}

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (NAME(fd)) free(names[fd]), names[fd] = NULL;
    int result = REAL(close)(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

#define PWRITE(name)                                                                 \
    ssize_t name(int fd, const void *data, size_t size, off_t offset) {              \
        pthread_mutex_lock(&lock);                                                   \
        ssize_t done = REAL(name)(fd, data, size, offset);                           \
        if (done > 0 && NAME(fd)) note(WRITE, NAME(fd), offset, data, done);         \
        pthread_mutex_unlock(&lock);                                                 \
        return done;                                                                 \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t write(int fd, const void *data, size_t size) {
    if (!NAME(fd)) return REAL(write)(fd, data, size); /* pipes block: not under our lock */
    pthread_mutex_lock(&lock);
    off_t offset = (fcntl(fd, F_GETFL) & O_APPEND) ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    ssize_t done = REAL(write)(fd, data, size);
    if (done > 0 && NAME(fd)) note(WRITE, NAME(fd), offset, data, done);
    pthread_mutex_unlock(&lock);
    return done;
}

#define TRUNCATED(name)                                                              \
    int name(int fd, off_t size) {                                                   \
        pthread_mutex_lock(&lock);                                                   \
        int result = REAL(name)(fd, size);                                           \
        if (!result && NAME(fd)) note(TRUNCATE, NAME(fd), size, NULL, 0);            \
        pthread_mutex_unlock(&lock);                                                 \
        return result;                                                               \
    }
TRUNCATED(ftruncate)
TRUNCATED(ftruncate64)

#define SYNCED(name)                                                                 \
    int name(int fd) {                                                               \
        pthread_mutex_lock(&lock);                                                   \
        int result = REAL(name)(fd);                                                 \
        if (!result && NAME(fd)) note(SYNC, NAME(fd), 0, NULL, 0);                   \
        pthread_mutex_unlock(&lock);                                                 \
        return result;                                                               \
    }
SYNCED(fsync)
SYNCED(fdatasync)

int rename(const char *from, const char *to) {
    char old[PATH_MAX], new[PATH_MAX];
    pthread_mutex_lock(&lock);
    int ours = absolute(from, old) && absolute(to, new);
    int result = REAL(rename)(from, to);
    if (!result && ours) note(RENAME, old, 0, new, strlen(new));
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    char full[PATH_MAX];
    pthread_mutex_lock(&lock);
    int ours = absolute(path, full);
    int result = REAL(unlink)(path);
    if (!result && ours) note(UNLINK, full, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
