/* Writes down, in one order, what a process asks of the disk below a folder; changes nothing that it does.

   LD_PRELOAD it with DISK_TRACE_FOLDER (absolute, no slash at its end) and DISK_TRACE_FILE. Each record is
   op (1 octet), file (4), offset (8), length (4), then `length` octets; numbers in the machine's own order:
     O open: offset = flags, data = path   W write   T truncate: offset = size   B sync begins   E sync has ended
     R rename: data = old path, NUL, new path   U unlink: data = path
   A write that came before B is on the disk once E is there; nothing else is promised. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_FILES 4096

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static uint32_t number_of[MAX_FILES]; /* of the open file behind a descriptor, 0 for those not traced */
static uint32_t opened;
static int trace = -1;
static char folder[4096];
static size_t folder_length;

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("DISK_TRACE_FILE"), *below = getenv("DISK_TRACE_FOLDER");
    if (!name || !below || strlen(below) >= sizeof folder) return;
    strcpy(folder, below);
    folder_length = strlen(folder);
    trace = (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(const void *data, size_t length) {
    const char *at = data;
    while (length) {
        long done = syscall(SYS_write, trace, at, length);
        if (done <= 0) abort();
        at += done;
        length -= (size_t)done;
    }
}

static void record(char op, uint32_t file, uint64_t offset, const void *data, uint32_t length) {
    char head[17];
    head[0] = op;
    memcpy(head + 1, &file, 4);
    memcpy(head + 5, &offset, 8);
    memcpy(head + 13, &length, 4);
    put(head, sizeof head);
    if (length) put(data, length);
}

static int is_below(const char *path) {
    return trace >= 0 && path && !strncmp(path, folder, folder_length) &&
           (path[folder_length] == '/' || path[folder_length] == 0);
}

static uint32_t file_of(int fd) { return trace >= 0 && fd >= 0 && fd < MAX_FILES ? number_of[fd] : 0; }

static int open_traced(int at, const char *path, int flags, mode_t mode) {
    int traced = is_below(path), fd;
    if (traced) pthread_mutex_lock(&order);
    fd = (int)syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && fd < MAX_FILES) number_of[fd] = 0;
    if (traced) {
        if (fd >= 0 && fd < MAX_FILES) {
            number_of[fd] = ++opened;
            record('O', opened, (uint64_t)flags, path, (uint32_t)strlen(path));
        }
        pthread_mutex_unlock(&order);
    }
    return fd;
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list list; \
        va_start(list, flags); \
        mode = va_arg(list, mode_t); \
        va_end(list); \
    }

int open(const char *path, int flags, ...) { MODE_OF(flags) return open_traced(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags) return open_traced(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE_OF(flags) return open_traced(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE_OF(flags) return open_traced(at, path, flags, mode); }

int close(int fd) {
    if (fd >= 0 && fd < MAX_FILES) number_of[fd] = 0;
    return (int)syscall(SYS_close, fd);
}

static ssize_t write_traced(int fd, const void *data, size_t length, off64_t offset) {
    uint32_t file = file_of(fd);
    ssize_t done;
    if (!file) return offset < 0 ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, offset);
    pthread_mutex_lock(&order);
    if (offset < 0) {
        done = syscall(SYS_write, fd, data, length);
        offset = lseek64(fd, 0, SEEK_CUR) - (done > 0 ? done : 0);
    } else {
        done = syscall(SYS_pwrite64, fd, data, length, offset);
    }
    if (done > 0) record('W', file, (uint64_t)offset, data, (uint32_t)done);
    pthread_mutex_unlock(&order);
    return done;
}

ssize_t write(int fd, const void *data, size_t length) { return write_traced(fd, data, length, -1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return write_traced(fd, data, length, offset); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    return write_traced(fd, data, length, offset);
}

static int truncate_traced(int fd, off64_t size) {
    uint32_t file = file_of(fd);
    int result;
    if (!file) return (int)syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&order);
    result = (int)syscall(SYS_ftruncate, fd, size);
    if (!result) record('T', file, (uint64_t)size, NULL, 0);
    pthread_mutex_unlock(&order);
    return result;
}

int ftruncate(int fd, off_t size) { return truncate_traced(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncate_traced(fd, size); }

static int sync_traced(long call, int fd) {
    uint32_t file = file_of(fd);
    int result;
    if (!file) return (int)syscall(call, fd);
    pthread_mutex_lock(&order);
    record('B', file, 0, NULL, 0);
    pthread_mutex_unlock(&order);
    result = (int)syscall(call, fd);
    if (!result) {
        pthread_mutex_lock(&order);
        record('E', file, 0, NULL, 0);
        pthread_mutex_unlock(&order);
    }
    return result;
}

int fsync(int fd) { return sync_traced(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_traced(SYS_fdatasync, fd); }

static int rename_traced(const char *old, const char *new) {
    char paths[8192];
    int result, length;
    if (!is_below(old)) return (int)syscall(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, new, 0);
    pthread_mutex_lock(&order);
    result = (int)syscall(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, new, 0);
    length = snprintf(paths, sizeof paths, "%s%c%s", old, 0, new);
    if (!result && length > 0 && length < (int)sizeof paths) record('R', 0, 0, paths, (uint32_t)length);
    pthread_mutex_unlock(&order);
    return result;
}

int rename(const char *old, const char *new) { return rename_traced(old, new); }
int renameat(int from, const char *old, int to, const char *new) {
    if (from == AT_FDCWD && to == AT_FDCWD) return rename_traced(old, new);
    return (int)syscall(SYS_renameat2, from, old, to, new, 0);
}

static int unlink_traced(int at, const char *path, int flags) {
    int result;
    if (!is_below(path)) return (int)syscall(SYS_unlinkat, at, path, flags);
    pthread_mutex_lock(&order);
    result = (int)syscall(SYS_unlinkat, at, path, flags);
    if (!result && !flags) record('U', 0, 0, path, (uint32_t)strlen(path));
    pthread_mutex_unlock(&order);
    return result;
}

int unlink(const char *path) { return unlink_traced(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return unlink_traced(at, path, flags); }
