/*
 * crash.c
 *		Which process of ours brought the server down, and what it had in hand.
 *
 * Nothing is written while all is well: what is under way is in the shared
 * memory anyway, for retry.running and for executors' jobs.  Each process of
 * ours has a witness there, which says that it lives and has not exited in
 * order; so after a crash, one that is still said to live is the one that
 * crashed.  Others were told to quit (and their handler says so), or saw the
 * postmaster's end.  A process that was killed by somebody, or by a PANIC,
 * which is the server's trouble and no task's, is not held against anybody;
 * one that the kernel killed for want of memory is, a little.
 *
 * The postmaster reads this in the callback that is run before it gives the old
 * shared memory back, and so late that none of its children lives any more.
 * The memory may be damaged, so it follows no pointers in it, and trusts no
 * number.  What it finds it keeps in its own memory, which every process forked
 * later has too, and in a file, for the next postmaster.
 */
#include "postgres.h"

#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/elog.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "crash.h"
#include "guc.h"
#include "pool.h"
#include "shmem_private.h"

#define FILE_NAME		"pg_stat/retry_crashes"
#define FILE_MAGIC		0x52435231
#define CRASHES_MAX		64

/* So many crashes in the time are let pass without a pause. */
#define PAUSE_AFTER		6
#define PAUSE_WITHIN_US (10 * USECS_PER_MINUTE)
#define PAUSE_MAX_MS	60000

/* One for each dispatcher there can be, then one for each executor. */
typedef struct Witness
{
	volatile sig_atomic_t alive;	/* it has not exited in order */
	volatile sig_atomic_t signal;	/* that it was hit by, of its own making */
} Witness;

/* What the file begins with; suspects and crashes follow. */
typedef struct Header
{
	uint32		magic;
	uint32		sizes;			/* of the two structs, for other versions */
	int32		nsuspects;
	int32		ncrashes;
	pg_crc32c	crc;			/* of what follows */
} Header;

static Witness *witnesses = NULL;	/* in shared memory */
static Witness *mine = NULL;

/* The postmaster's own memory, as of the fork in its children. */
static RetrySuspect *suspects = NULL;
static int	nsuspects = 0;
static RetryCrash crashes[CRASHES_MAX];
static int	ncrashes = 0;
static int64 memory_kills = -1; /* as the kernel counted them last */

static emit_log_hook_type previous_log_hook = NULL;

static Size
witnesses_size(void)
{
	return mul_size(sizeof(Witness), mul_size(2, max_worker_processes));
}

void
retry_crash_request_memory(void)
{
	RequestAddinShmemSpace(witnesses_size());
}

/* What is remembered */

static int
max_suspects(void)
{
	return 4096 + 2 * retry_max_in_flight;
}

static bool
is_old(TimestampTz at, TimestampTz now)
{
	return at < now - RETRY_CRASH_MEMORY_US || at > now + RETRY_CRASH_MEMORY_US;
}

static void
forget_old(TimestampTz now)
{
	int			n = 0;

	for (int i = 0; i < nsuspects; i++)
	{
		if (!is_old(suspects[i].last_at, now))
			suspects[n++] = suspects[i];
	}
	nsuspects = n;
	n = 0;
	for (int i = 0; i < ncrashes; i++)
	{
		if (!is_old(crashes[i].at, now))
			crashes[n++] = crashes[i];
	}
	ncrashes = n;
}

/* Makes room for another by forgetting the one that was seen longest ago. */
static RetrySuspect *
new_suspect(void)
{
	int			oldest = 0;

	if (suspects == NULL)
		suspects = malloc(max_suspects() * sizeof(RetrySuspect));
	if (suspects == NULL)
		return NULL;
	if (nsuspects < max_suspects())
		return &suspects[nsuspects++];
	for (int i = 1; i < nsuspects; i++)
	{
		if (suspects[i].last_at < suspects[oldest].last_at)
			oldest = i;
	}
	return &suspects[oldest];
}

/* A task will be put aside: that is what the last crashes were for, it seems. */
static void
explain(Oid database)
{
	int			condemned = 0;

	for (int i = 0; i < nsuspects; i++)
		condemned += suspects[i].database == database && suspects[i].alone >= RETRY_POINTS_CONDEMNED;
	for (int i = 0; i < ncrashes && condemned <= RETRY_CONDEMNED_MAX; i++)
	{
		if (crashes[i].database == database)
			crashes[i].explained = 1;
	}
}

static void
suspect(const RetryCrash *crash, const pg_uuid_t *id, int32 attempt_no)
{
	int			points = crash->signal == SIGKILL ? RETRY_POINTS_MEMORY : RETRY_POINTS_FAULT;
	RetrySuspect *s = NULL;

	for (int i = 0; i < nsuspects && s == NULL; i++)
	{
		if (suspects[i].attempt_no == attempt_no && suspects[i].database == crash->database &&
			memcmp(&suspects[i].id, id, sizeof(pg_uuid_t)) == 0)
			s = &suspects[i];
	}
	if (s == NULL)
	{
		s = new_suspect();
		if (s == NULL)
			return;
		memset(s, 0, sizeof(RetrySuspect));
		s->database = crash->database;
		s->id = *id;
		s->attempt_no = attempt_no;
	}
	if (!crash->executor)
		s->points += points;
	s->last_at = crash->at;
	if (crash->company != 1)
		return;
	s->alone += points;
	if (s->alone >= RETRY_POINTS_CONDEMNED && s->alone < RETRY_POINTS_CONDEMNED + points)
		explain(crash->database);
}

static void
note_crash(const RetryCrash *crash)
{
	if (ncrashes == CRASHES_MAX)
		memmove(crashes, crashes + 1, --ncrashes * sizeof(RetryCrash));
	crashes[ncrashes++] = *crash;
	ereport(LOG,
			(errmsg("retry: the %s of database %u that crashed (signal %d) had %d attempts under way",
					crash->executor ? "executor" : "dispatcher", crash->database, crash->signal,
					crash->company)));
}

/* The file */

static uint32
struct_sizes(void)
{
	return sizeof(RetrySuspect) << 16 | sizeof(RetryCrash);
}

static void
write_file(void)
{
	Header		header = {.magic = FILE_MAGIC,.sizes = struct_sizes(),
	.nsuspects = nsuspects,.ncrashes = ncrashes};
	FILE	   *file = AllocateFile(FILE_NAME ".tmp", PG_BINARY_W);

	if (file != NULL)
	{
		bool		good;

		INIT_CRC32C(header.crc);
		if (nsuspects > 0)
			COMP_CRC32C(header.crc, suspects, nsuspects * sizeof(RetrySuspect));
		COMP_CRC32C(header.crc, crashes, ncrashes * sizeof(RetryCrash));
		FIN_CRC32C(header.crc);
		good = fwrite(&header, sizeof(header), 1, file) == 1 &&
			(nsuspects == 0 || fwrite(suspects, sizeof(RetrySuspect), nsuspects, file) == nsuspects) &&
			fwrite(crashes, sizeof(RetryCrash), ncrashes, file) == ncrashes;
		good = FreeFile(file) == 0 && good;
		if (good && durable_rename(FILE_NAME ".tmp", FILE_NAME, LOG) == 0)
			return;
		unlink(FILE_NAME ".tmp");
	}
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("retry: file \"%s\" cannot be written, the crash is forgotten when the server stops: %m", FILE_NAME)));
}

/* Fills the memory; false when the file is not whole, or another version's. */
static bool
read_rows(FILE *file)
{
	Header		header;
	pg_crc32c	crc;

	if (fread(&header, sizeof(header), 1, file) != 1 || header.magic != FILE_MAGIC ||
		header.sizes != struct_sizes() || header.nsuspects < 0 || header.ncrashes < 0 ||
		header.ncrashes > CRASHES_MAX)
		return false;
	if (header.nsuspects > max_suspects())
		return false;			/* written under a larger setting */
	suspects = malloc(max_suspects() * sizeof(RetrySuspect));
	if (suspects == NULL ||
		fread(suspects, sizeof(RetrySuspect), header.nsuspects, file) != header.nsuspects ||
		fread(crashes, sizeof(RetryCrash), header.ncrashes, file) != header.ncrashes)
		return false;
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, suspects, header.nsuspects * sizeof(RetrySuspect));
	COMP_CRC32C(crc, crashes, header.ncrashes * sizeof(RetryCrash));
	FIN_CRC32C(crc);
	if (!EQ_CRC32C(crc, header.crc))
		return false;
	nsuspects = header.nsuspects;
	ncrashes = header.ncrashes;
	return true;
}

static void
read_file(void)
{
	FILE	   *file = AllocateFile(FILE_NAME, PG_BINARY_R);

	if (file == NULL)
		return;
	if (!read_rows(file))
		ereport(LOG,
				(errmsg("retry: file \"%s\" cannot be used, former crashes are forgotten", FILE_NAME)));
	FreeFile(file);
	forget_old(GetCurrentTimestamp());
	if (nsuspects == 0 && ncrashes == 0)
		unlink(FILE_NAME);
}

/* After a crash, in the postmaster */

/* Processes that the kernel has killed for want of memory; -1: it does not say. */
static int64
count_memory_kills(void)
{
	FILE	   *file = AllocateFile("/proc/vmstat", "r");
	char		line[128];
	int64		count = -1;

	if (file == NULL)
		return -1;
	while (count < 0 && fgets(line, sizeof(line), file) != NULL)
	{
		if (strncmp(line, "oom_kill ", 9) == 0)
			count = strtoll(line + 9, NULL, 10);
	}
	FreeFile(file);
	return count;
}

/* Did it crash by a fault of its own?  Sets what it died of. */
static bool
is_crash(const Witness *witness, bool memory_short, int32 *signal)
{
	if (!witness->alive)
		return false;
	*signal = witness->signal;
	if (*signal > 0 && *signal < 64)
		return true;
	*signal = SIGKILL;
	return memory_short;
}

static void
look_at_dispatcher(int index, RetryCrash *crash)
{
	const RetryWorker *worker = &retry_shared->workers[index];
	const RetryInFlight *flights = retry_shmem_in_flight(worker);

	crash->database = worker->database;
	crash->company = 0;
	for (int i = 0; i < retry_max_in_flight; i++)
		crash->company += flights[i].attempt_no > 0;
	note_crash(crash);
	for (int i = 0; i < retry_max_in_flight; i++)
	{
		if (flights[i].attempt_no > 0)
			suspect(crash, &flights[i].id, flights[i].attempt_no);
	}
}

static void
look_at_executor(int index, RetryCrash *crash)
{
	RetryEntry	entry;

	crash->executor = 1;
	crash->company = retry_pool_at_work(index, &crash->database, &entry);
	note_crash(crash);
	if (crash->company > 0)
		suspect(crash, &entry.pos.id, entry.attempts + 1);
}

/*
 * The postmaster gives the shared memory back: for good, or to begin anew after
 * a crash.  No other process has it any more.
 */
static void
look_back(int code, Datum arg)
{
	int64		kills = memory_kills;
	bool		memory_short;
	bool		found = false;

	/* mostly there is nothing: then nothing is looked up */
	for (int i = 0; i < 2 * max_worker_processes && !found; i++)
		found = witnesses[i].alive;
	if (!found)
		return;
	memory_kills = count_memory_kills();
	memory_short = kills >= 0 && memory_kills > kills;
	found = false;
	forget_old(GetCurrentTimestamp());
	for (int i = 0; i < 2 * max_worker_processes; i++)
	{
		RetryCrash	crash = {.at = GetCurrentTimestamp()};

		if (!is_crash(&witnesses[i], memory_short, &crash.signal))
			continue;
		found = true;
		if (i < max_worker_processes)
			look_at_dispatcher(i, &crash);
		else
			look_at_executor(i - max_worker_processes, &crash);
	}
	if (found)
		write_file();
}

void
retry_crash_create_memory(void)
{
	static bool known = false;
	bool		found;

	witnesses = ShmemInitStruct("retry witnesses", witnesses_size(), &found);
	if (found || IsUnderPostmaster)
		return;
	memset(witnesses, 0, witnesses_size());
	if (!known)
	{
		known = true;
		memory_kills = count_memory_kills();
		read_file();
	}
	/* the list of callbacks is emptied after a crash, as the memory is */
	on_shmem_exit(look_back, (Datum) 0);
}

/* In the processes that are watched */

static void
exited_in_order(int code, Datum arg)
{
	mine->alive = 0;
}

/* Told to quit, since another has crashed, or the server stops at once. */
static void
handle_quit(SIGNAL_ARGS)
{
	mine->alive = 0;
	SignalHandlerForCrashExit(postgres_signal_arg);
}

/*
 * The process is at fault.  The default action has been restored already: when
 * this returns the fault occurs once more, and ends the process with whatever
 * the server makes of that.  A signal that was sent has to be sent again.
 */
static void
handle_fault(int signo, siginfo_t *info, void *context)
{
	if (info->si_code == SI_USER && info->si_pid == PostmasterPid)
		mine->alive = 0;		/* another has crashed, and cores are wanted */
	else if (mine->alive)
		mine->signal = signo;
	if (info->si_code <= 0)
		(void) raise(signo);
}

/* A PANIC is the server's trouble (no room for WAL, say), not a task's. */
static void
handle_log(ErrorData *error)
{
	if (error->elevel >= PANIC)
		mine->alive = 0;
	if (previous_log_hook)
		previous_log_hook(error);
}

static void
watch(Witness *witness)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
	struct sigaction action;
	stack_t		stack = {.ss_size = 64 * 1024};

	mine = witness;
	mine->signal = 0;

	/* the stack may be what has run out */
	stack.ss_sp = MemoryContextAlloc(TopMemoryContext, stack.ss_size);
	(void) sigaltstack(&stack, NULL);
	memset(&action, 0, sizeof(action));
	action.sa_sigaction = handle_fault;
	action.sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER | SA_ONSTACK;
	sigemptyset(&action.sa_mask);
	for (int i = 0; i < lengthof(faults); i++)
		(void) sigaction(faults[i], &action, NULL);
	pqsignal(SIGQUIT, handle_quit);
	previous_log_hook = emit_log_hook;
	emit_log_hook = handle_log;
	on_shmem_exit(exited_in_order, (Datum) 0);
	mine->alive = 1;
}

void
retry_crash_watch_dispatcher(const RetryWorker *worker)
{
	watch(&witnesses[worker - retry_shared->workers]);
}

void
retry_crash_watch_executor(int executor)
{
	watch(&witnesses[max_worker_processes + executor]);
}

/* For everybody */

void
retry_crash_each_suspect(void (*visit) (const RetrySuspect *suspect, void *arg), void *arg)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < nsuspects; i++)
	{
		if (suspects[i].database == MyDatabaseId && !is_old(suspects[i].last_at, now))
			visit(&suspects[i], arg);
	}
}

void
retry_crash_summary(Oid database, RetryCrashes *out)
{
	TimestampTz now = GetCurrentTimestamp();

	memset(out, 0, sizeof(*out));
	for (int i = 0; i < ncrashes; i++)
	{
		if (crashes[i].database != database || is_old(crashes[i].at, now))
			continue;
		out->n++;
		out->last = crashes[i];
	}
}

int
retry_crash_pause_ms(Oid database)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz last = 0;
	int			n = 0;
	int64		pause;

	for (int i = 0; i < ncrashes; i++)
	{
		if (crashes[i].database != database || crashes[i].signal == SIGKILL ||
			crashes[i].explained || crashes[i].at < now - PAUSE_WITHIN_US || crashes[i].at > now)
			continue;
		n++;
		last = crashes[i].at;
	}
	if (n <= PAUSE_AFTER)
		return 0;
	pause = Min(PAUSE_MAX_MS, INT64CONST(1000) << Min(n - PAUSE_AFTER - 1, 10));
	return (int) Max(pause - (now - last) / 1000, 0);
}
