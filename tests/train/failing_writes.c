/* A disk that fails on demand: preloaded, it makes chosen calls that write below a folder fail.

   fail_writes(prefix, first, count, error): of the calls that write below prefix, counted from 1 from now on, those from
   `first` on fail with `error`, `count` of them (0: all). writes_so_far(): how many there were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char below[PATH_MAX];
static long calls, first_failing, failing_count;
static int failing_error;

void fail_writes(const char *prefix, long first, long count, int error) {
  pthread_mutex_lock(&lock);
  snprintf(below, sizeof below, "%s", prefix);
  calls = 0, first_failing = first, failing_count = count, failing_error = error;
  pthread_mutex_unlock(&lock);
}

long writes_so_far(void) { return calls; }

static int fails(const char *path) {
  int failing = 0;
  if (!below[0] || !path || strncmp(path, below, strlen(below)) != 0) return 0;
  pthread_mutex_lock(&lock);
  calls++;
  failing = first_failing && calls >= first_failing && (!failing_count || calls < first_failing + failing_count);
  pthread_mutex_unlock(&lock);
  if (failing) errno = failing_error;
  return failing;
}

static int fd_fails(int fd) {
  char link[64], path[PATH_MAX];
  if (!below[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return fails(path);
}

static int at_fails(int folder, const char *path) {
  char link[64], whole[2 * PATH_MAX], start[PATH_MAX];
  if (!path || path[0] == '/' || folder == AT_FDCWD) return fails(path);
  snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
  ssize_t length = readlink(link, start, sizeof start - 1);
  if (length < 0) return 0;
  start[length] = 0;
  snprintf(whole, sizeof whole, "%s/%s", start, path);
  return fails(whole);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRITES(flags) ((flags) & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC))
#define MODE(flags, mode) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) { MODE(flags, mode) return WRITES(flags) && fails(path) ? -1 : REAL(open)(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return WRITES(flags) && fails(path) ? -1 : REAL(open64)(path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, mode) return WRITES(flags) && at_fails(at, path) ? -1 : REAL(openat)(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags, mode) return WRITES(flags) && at_fails(at, path) ? -1 : REAL(openat64)(at, path, flags, mode); }
int mkdir(const char *path, mode_t mode) { return fails(path) ? -1 : REAL(mkdir)(path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return at_fails(at, path) ? -1 : REAL(mkdirat)(at, path, mode); }
int rename(const char *from, const char *to) { return fails(to) ? -1 : REAL(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) { return at_fails(b, to) ? -1 : REAL(renameat)(a, from, b, to); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return at_fails(b, to) ? -1 : REAL(renameat2)(a, from, b, to, flags); }
int link(const char *from, const char *to) { return fails(to) ? -1 : REAL(link)(from, to); }
ssize_t write(int fd, const void *data, size_t size) { return fd_fails(fd) ? -1 : REAL(write)(fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return fd_fails(fd) ? -1 : REAL(pwrite)(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return fd_fails(fd) ? -1 : REAL(pwrite64)(fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *data, int count) { return fd_fails(fd) ? -1 : REAL(writev)(fd, data, count); }
ssize_t pwritev(int fd, const struct iovec *data, int count, off_t at) { return fd_fails(fd) ? -1 : REAL(pwritev)(fd, data, count, at); }
int fsync(int fd) { return fd_fails(fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fd_fails(fd) ? -1 : REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t size) { return fd_fails(fd) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return fd_fails(fd) ? -1 : REAL(ftruncate64)(fd, size); }
