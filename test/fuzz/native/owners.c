/*
 * The search for the holders of sockets in a /proc that the input makes up, against the plainest way to say who holds what; and
 * the question to the kernel, whose answer fills all the room there is.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "napi.h"

enum { MOST_PROCESSES = 8, MOST_LINKS = 8, LINK_ROOM = 80, MOST_INODES = 8, MOST_PAIRS = 16, PROC = 1000 };

static struct input *input;
static struct {
  char name[NAME_MAX + 1];
  int links;
  char link[MOST_LINKS][LINK_ROOM];
  int length[MOST_LINKS];
} processes[MOST_PROCESSES];
static int process_count;

/* A folder that is read: /proc itself, or the descriptors of one process. */
static struct folder {
  int process, next;
  struct dirent entry;
} folders[2];

static DIR *open_proc(void) {
  folders[0] = (struct folder){.process = -1};
  return take_u8(input) == 255 ? (errno = EMFILE, (DIR *)NULL) : (DIR *)&folders[0];
}

static int open_descriptors(int folder, const char *path) {
  char name[NAME_MAX + 4];
  for (int i = 0; i < process_count; i++) {
    snprintf(name, sizeof name, "%s/fd", processes[i].name);
    if (folder == 3 && strcmp(path, name) == 0) return take_u8(input) == 254 ? -1 : PROC + i;
  }
  return -1;
}

static DIR *open_by(int fd) {
  folders[1] = (struct folder){.process = fd - PROC};
  return (DIR *)&folders[1];
}

static struct dirent *next_entry(DIR *dir) {
  struct folder *folder = (struct folder *)dir;
  int i = folder->next++;
  if (i >= (folder->process < 0 ? process_count : processes[folder->process].links)) return NULL;
  if (folder->process < 0) memcpy(folder->entry.d_name, processes[i].name, sizeof processes[i].name);
  else snprintf(folder->entry.d_name, sizeof folder->entry.d_name, "%d", i);
  return &folder->entry;
}

/* Without an end mark, and cut to the room there is, as the kernel does it. */
static ssize_t read_link(int fd, const char *name, char *into, size_t room) {
  int i = atoi(name), process = fd - PROC, length = processes[process].length[i];
  if (length == 0) return errno = ENOENT, -1;
  if ((size_t)length > room) length = (int)room;
  memcpy(into, processes[process].link[i], (size_t)length);
  return length;
}

static ssize_t answer(uint8_t *reply, size_t room) {
  memset(reply, (int)take_u8(input), room);
  return take_u8(input) % 4 == 0 ? (errno = EAGAIN, -1) : (ssize_t)room;
}

static int look(const void *bytes, size_t length, const void *more) {
  uint8_t sum = 0;
  for (size_t i = 0; i < length; i++) sum ^= ((const uint8_t *)bytes)[i];
  return sum == take_u8(input) || more == NULL ? (errno = ENOBUFS, -1) : 0;
}

static int closed(const void *what) { return what == NULL ? -1 : 0; }

#define opendir(path) open_proc()
#define dirfd(dir) 3
#define openat(folder, path, flags) open_descriptors(folder, path)
#define fdopendir(fd) open_by(fd)
#define readdir(dir) next_entry(dir)
#define closedir(dir) closed(dir)
#define close(fd) closed(&(int){fd})
#define readlinkat(fd, name, into, room) read_link(fd, name, into, room)
#define socket(family, type, protocol) (take_u8(input) == 255 ? -1 : 3)
#define setsockopt(fd, level, name, value, length) look(value, length, "")
#define sendto(fd, bytes, length, flags, to, to_length) look(bytes, length, to)
#define recv(fd, bytes, length, flags) answer(bytes, length)
#include "../../../native-shims/owners.c"

static void make_link(int process, int i) {
  static const char *const forms[] = {"socket:[%u]", "socket:[%u", "socket:%u]", "pipe:[%u]", "socket:[00%u]", "socket:[%u]/x"};
  uint32_t kind = take_u8(input);
  if (kind < 200) {
    processes[process].length[i] = snprintf(processes[process].link[i], LINK_ROOM, forms[kind % 6], take_u8(input) % 12);
    return;
  }
  size_t length = take_u8(input) % LINK_ROOM;
  const uint8_t *bytes = take_bytes(input, &length);
  memcpy(processes[process].link[i], bytes, length);
  processes[process].length[i] = (int)length;
}

static void make_processes(void) {
  process_count = (int)take_u8(input) % (MOST_PROCESSES + 1);
  for (int i = 0; i < process_count; i++) {
    uint32_t kind = take_u8(input);
    memset(processes[i].name, 0, sizeof processes[i].name);
    if (kind < 230) snprintf(processes[i].name, sizeof processes[i].name, "%d", i * 11 + 1);
    else memset(processes[i].name, (int)kind % 2 ? '7' : 'x', take_u8(input) + (i == 0)); /* as long as names may be */
    processes[i].links = (int)take_u8(input) % (MOST_LINKS + 1);
    for (int k = 0; k < processes[i].links; k++) make_link(i, k);
  }
}

/* What a link names; -1 for no socket. */
static double inode_of(int process, int link) {
  char text[LINK_ROOM + 1] = {0};
  memcpy(text, processes[process].link[link], (size_t)processes[process].length[link] < LINK_BYTES - 1 ? (size_t)processes[process].length[link] : LINK_BYTES - 1);
  if (strncmp(text, "socket:[", 8) != 0) return -1;
  return (double)strtoull(text + 8, NULL, 10);
}

static bool holds(int pid, double inode) {
  for (int i = 0; i < process_count; i++)
    for (int k = 0; k < processes[i].links; k++)
      if (atoi(processes[i].name) == pid && processes[i].length[k] > 0 && inode_of(i, k) == inode) return true;
  return false;
}

static void search(void) {
  size_t inodes = 1 + take_u8(input) % MOST_INODES, room = take_u8(input) % (2 * MOST_PAIRS + 1);
  double *wanted = malloc(inodes * sizeof *wanted);
  int32_t *pairs = malloc(room == 0 ? 1 : room * sizeof *pairs);
  for (size_t i = 0; i < inodes; i++) wanted[i] = (i == 0 ? 0 : wanted[i - 1]) + 1 + take_u8(input) % 3;
  napi_value given[] = {fuzz_array(napi_float64_array, wanted, inodes), fuzz_array(napi_int32_array, pairs, room)};
  fuzz_call("socketHolders", 2, given);
  double found = fuzz_resolved();
  DEMAND(found <= (double)(room / 2), "there are no more pairs than there is room for");
  for (int i = 0; i < found; i++) {
    DEMAND(pairs[2 * i] >= 0 && (size_t)pairs[2 * i] < inodes, "a pair names one of the sockets");
    DEMAND(holds(pairs[2 * i + 1], wanted[pairs[2 * i]]), "who is named holds it");
  }
  free(wanted);
  free(pairs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input at = {data, data + size};
  input = &at;
  fuzz_begin();
  if (fuzz_function_count == 0) owners_export(NULL, fuzz_exports());
  make_processes();
  search();
  for (int calls = 0; calls < 4 && at.at < at.end; calls++) {
    napi_value anything[2] = {fuzz_anything(input, NULL), fuzz_anything(input, NULL)};
    fuzz_call_at((int)take_u8(input) % fuzz_function_count, 2, anything);
  }
  fuzz_end();
  return 0;
}
