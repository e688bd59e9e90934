/*
 * power.c
 *		A disk whose cache is lost when the power goes, for the WAL of a server.
 *
 * Preloaded into the postmaster, it keeps for each WAL segment what must be
 * put back to undo all that was written to it since it was last synced: before
 * a write, the bytes that it is to replace are appended to a file; when the
 * sync has succeeded, that file is emptied.  After all processes were killed,
 * RetryTest::Power puts the bytes back, last first, and what remains is what a
 * disk had to keep.  PostgreSQL writes and syncs WAL under one lock, so the
 * order in such a file is that of the writes.
 *
 * Other files are left as they were written: a disk may keep what it need not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define SYNC_US	8000

typedef struct Undo
{
	int64_t		offset;
	int64_t		length;
} Undo;

/* The undo file of a WAL segment, opened; -1 for any other descriptor. */
static int
undo_of(int fd, int flags)
{
	const char *folder = getenv("RETRY_TEST_POWER");
	char		link[64];
	char		path[4096];
	char		undo[4096];
	ssize_t		len;
	const char *name;

	if (folder == NULL)
		return -1;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (len < 24)
		return -1;
	path[len] = '\0';
	name = path + len - 24;
	if (name[-1] != '/' || strspn(name, "0123456789ABCDEF") != 24)
		return -1;
	snprintf(undo, sizeof(undo), "%s/%s", folder, name);
	return open(undo, flags | O_CLOEXEC, 0600);
}

static void
remember(int fd, size_t length, off_t offset)
{
	int			undo = undo_of(fd, O_WRONLY | O_CREAT | O_APPEND);
	Undo		head = {offset, (int64_t) length};
	struct iovec parts[2];
	char	   *old;

	if (undo < 0)
		return;
	old = calloc(1, length);
	if (old != NULL && pread(fd, old, length, offset) >= 0)
	{
		parts[0] = (struct iovec) {&head, sizeof(head)};
		parts[1] = (struct iovec) {old, length};
		if (writev(undo, parts, 2) < 0)
			abort();
	}
	free(old);
	close(undo);
}

static ssize_t
write_at(const char *symbol, int fd, const void *data, size_t length, off_t offset)
{
	ssize_t		(*real) (int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, symbol);

	remember(fd, length, offset);
	return real(fd, data, length, offset);
}

ssize_t
pwrite(int fd, const void *data, size_t length, off_t offset)
{
	return write_at("pwrite", fd, data, length, offset);
}

ssize_t
pwrite64(int fd, const void *data, size_t length, off_t offset)
{
	return write_at("pwrite64", fd, data, length, offset);
}

/*
 * A disk takes its time to sync, where memory takes none: without it, hardly a
 * cut would ever come between a write and its sync.
 */
static int
sync_with(const char *symbol, int fd)
{
	int			(*real) (int) = dlsym(RTLD_NEXT, symbol);
	int			undo = undo_of(fd, O_WRONLY);
	int			rc;

	if (undo >= 0)
		usleep(SYNC_US);
	rc = real(fd);
	if (undo >= 0)
	{
		if (rc == 0 && ftruncate(undo, 0) != 0)
			abort();
		close(undo);
	}
	return rc;
}

int
fdatasync(int fd)
{
	return sync_with("fdatasync", fd);
}

int
fsync(int fd)
{
	return sync_with("fsync", fd);
}
