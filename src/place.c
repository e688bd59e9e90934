/*
 * place.c
 *		Tells a copy of a database from its original that has moved.
 *
 * What a copy has not finished is its original's to finish, and both must not.
 * A database made by CREATE DATABASE ... TEMPLATE has another OID.  A copy of
 * the whole server is the same to the bit, so a dispatcher that starts looks at
 * where it runs, and compares that with where the last one ran, which the copy
 * brought along:
 *
 *		same timeline, another base backup		a copy: somebody started what
 *												pg_basebackup made, without
 *												making it a standby first
 *		the former server still runs			a copy, however it was made
 *		another timeline						a promoted standby, or a recovery:
 *												it takes over
 *		another system identifier				pg_upgrade: it takes over
 *		another directory, and nothing else		moved, or a copy; nobody can tell
 *
 * Whoever takes over goes on at once, since a failover must; what cannot be
 * told goes on with a warning.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "event.h"
#include "place.h"
#include "store.h"
#include "table_read.h"

/* Columns of retry.place. */
enum
{
	Place_xid, Place_system, Place_timeline, Place_backup, Place_directory, Place_at, Place_natts
};

typedef struct Place
{
	uint64		system;
	int32		timeline;
	char	   *backup;			/* NULL: none, or it is not known any more */
	char	   *directory;
} Place;

/*
 * The beginning of a file, ended by a null byte; "buffer" has room for one more
 * than "size".  Returns the number of bytes, 0 when it cannot be read.
 */
static int
read_file(const char *directory, const char *name, char *buffer, int size)
{
	char		path[MAXPGPATH];
	int			fd;
	ssize_t		n;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, buffer, size);
	close(fd);
	if (n < 0)
		n = 0;
	buffer[n] = '\0';
	return (int) n;
}

/* Appends what follows "label" in its line, or before a blank. */
static void
take_field(StringInfo out, const char *text, const char *label, char end)
{
	const char *value = strstr(text, label);

	if (value == NULL)
		return;
	value += strlen(label);
	while (*value != '\0' && *value != '\n' && *value != end)
		appendStringInfoChar(out, *value++);
}

/* Which base backup the data directory was made from; NULL: from none. */
static char *
base_backup(void)
{
	char		text[2048];
	StringInfoData id;

	if (read_file(DataDir, "backup_label.old", text, sizeof(text) - 1) == 0)
		return NULL;
	initStringInfo(&id);
	take_field(&id, text, "START WAL LOCATION: ", ' ');
	take_field(&id, text, "START TIME:", '\n');
	return id.len > 0 ? id.data : NULL;
}

static void
this_place(Place *place)
{
	place->system = GetSystemIdentifier();
	place->timeline = (int32) GetWALInsertionTimeLine();
	place->backup = base_backup();
	place->directory = DataDir;
}

/*
 * The place that was noted last, if any.  False when the table is locked.
 */
static bool
last_place(Snapshot snapshot, Place *place, bool *found)
{
	RetryTableRead read = {0};
	uint64		latest = 0;

	*found = false;
	if (!retry_table_read_begin(&read, "place", Place_natts, snapshot))
		return false;
	while (retry_table_read_next(&read))
	{
		const Datum *values = read.slot->tts_values;
		uint64		xid = U64FromFullTransactionId(DatumGetFullTransactionId(values[Place_xid]));

		if (*found && xid < latest)
			continue;
		*found = true;
		latest = xid;
		place->system = (uint64) DatumGetInt64(values[Place_system]);
		place->timeline = DatumGetInt32(values[Place_timeline]);
		place->backup = read.slot->tts_isnull[Place_backup] ? NULL :
			TextDatumGetCString(values[Place_backup]);
		place->directory = TextDatumGetCString(values[Place_directory]);
	}
	retry_table_read_end(&read);
	return true;
}

static bool
note_place(const Place *place)
{
	RetryAppender *appender = retry_append_begin(retry_relation_oid("place"), Place_natts, true);
	Datum		values[Place_natts];
	bool		isnull[Place_natts] = {false};

	if (appender == NULL)
		return false;
	values[Place_xid] = FullTransactionIdGetDatum(GetTopFullTransactionId());
	values[Place_system] = Int64GetDatum((int64) place->system);
	values[Place_timeline] = Int32GetDatum(place->timeline);
	isnull[Place_backup] = place->backup == NULL;
	values[Place_backup] = isnull[Place_backup] ? (Datum) 0 : CStringGetTextDatum(place->backup);
	values[Place_directory] = CStringGetTextDatum(place->directory);
	values[Place_at] = TimestampTzGetDatum(GetCurrentTimestamp());
	retry_append_row(appender, values, isnull);
	retry_append_end(appender);
	return true;
}

/*
 * Does a server of this system run in that directory, which is not ours, and
 * as a primary?  Found out by what lies there and by the process named in its
 * postmaster.pid, which must work in it: a number may be another's by now.
 * False when it cannot be known, as on another machine.
 */
static bool
runs_elsewhere(const Place *place)
{
	char		path[MAXPGPATH];
	struct stat there;
	struct stat here;
	union
	{
		ControlFileData file;
		char		bytes[sizeof(ControlFileData) + 1];
	}			control;
	char		pid_file[64];
	int			pid;

	if (stat(place->directory, &there) != 0 || stat(DataDir, &here) != 0 ||
		(there.st_dev == here.st_dev && there.st_ino == here.st_ino))
		return false;
	if (read_file(place->directory, XLOG_CONTROL_FILE, control.bytes, sizeof(ControlFileData)) != sizeof(ControlFileData) ||
		control.file.pg_control_version != PG_CONTROL_VERSION ||
		control.file.system_identifier != place->system ||
		control.file.state != DB_IN_PRODUCTION)
		return false;
	if (read_file(place->directory, "postmaster.pid", pid_file, sizeof(pid_file) - 1) == 0)
		return false;
	pid = atoi(pid_file);
	if (pid <= 0 || pid == PostmasterPid)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/cwd", pid);
	return stat(path, &here) == 0 && there.st_dev == here.st_dev && there.st_ino == here.st_ino;
}

static bool
is_same(const Place *here, const Place *last)
{
	return here->system == last->system && here->timeline == last->timeline &&
		(here->backup == NULL || (last->backup != NULL && strcmp(here->backup, last->backup) == 0)) &&
		strcmp(here->directory, last->directory) == 0;
}

/* Why this server is a copy beside its original, as a sentence; NULL: it is none. */
static char *
why_copy(const Place *here, const Place *last)
{
	if (here->system != last->system)
		return NULL;
	if (runs_elsewhere(last))
		return psprintf("The server that it was made from runs in directory \"%s\".", last->directory);
	if (here->timeline == last->timeline && here->backup != NULL &&
		(last->backup == NULL || strcmp(here->backup, last->backup) != 0))
		return psprintf("The server was started from a base backup of %s, and not promoted.", here->backup);
	return NULL;
}

/* Says that another server goes on here. */
static void
announce(const Place *here, const Place *last)
{
	bool		moved = here->system == last->system && here->timeline == last->timeline;
	RetryEvent	event = {.kind = RETRY_EVENT_MOVED};

	event.detail = psprintf("directory \"%s\", timeline %d delivered before", last->directory, last->timeline);
	(void) retry_event_store(&event, false);
	if (moved)
		ereport(WARNING,
				(errmsg("retry: the server delivered from directory \"%s\" before, it goes on in \"%s\"",
						last->directory, here->directory),
				 errhint("If this is a copy and the other still runs, both send the same: set retry.enabled to off in one of them.")));
	else
		ereport(LOG,
				(errmsg("retry: this server goes on with what directory \"%s\", timeline %d, delivered before",
						last->directory, last->timeline)));
}

bool
retry_place_settle(const RetryConfig *config, const RetryDatabase *db, bool notes, Snapshot snapshot)
{
	static bool settled = false;
	Place		here;
	Place		last;
	bool		known;
	char	   *reason;

	if (settled)
		return true;
	if (retry_config_is_copy(config))
	{
		if (notes)
			(void) retry_config_note_copy(db->first_xid, "No row of retry.installation names it by its OID.");
		return false;
	}
	if (!last_place(snapshot, &last, &known))
		return false;
	this_place(&here);
	if (known && is_same(&here, &last))
	{
		settled = true;
		return true;
	}
	reason = known ? why_copy(&here, &last) : NULL;
	if (!notes)
		return reason == NULL;
	if (!note_place(&here))
		return false;
	if (reason != NULL)
	{
		/* without the note, nothing of this may be: an error undoes both */
		if (!retry_config_note_copy(db->first_xid, reason))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("retry.installation is locked")));
		return false;
	}
	if (known)
		announce(&here, &last);
	return true;
}
