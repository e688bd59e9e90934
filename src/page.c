/*
 * page.c
 *		One page of the tasks in a state: retry.page().
 *
 * A view that shows a role what it may see hands neither the order nor the
 * limit of a query down to its arms, so that a page of it can cost reading
 * everything.  Here the ids of the page come first, from the index that has
 * them in order, and then the rows of these ids from retry.tasks.
 *
 * The first leaves out what the caller may not see, so that the page is full;
 * the second is done as the caller, and is what decides what is shown.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "access.h"
#include "compat.h"
#include "locate.h"
#include "page_find.h"
#include "scene.h"
#include "scene_ids.h"
#include "statement.h"
#include "store.h"

PG_FUNCTION_INFO_V1(retry_page);

#define MAX_SIZE		1000

/* Dead letters outlive their tasks.  Whether one is to be seen: as in retry.tasks_dead. */
#define FIND_DEAD \
	"SELECT ARRAY (SELECT d.id FROM retry.dead_letter d" \
	" WHERE (d.scene_id = ANY ($1) OR d.scene_id = ANY ($2) AND pg_has_role($3, d.enqueued_by::oid, 'USAGE'))%s" \
	" ORDER BY d.died_at DESC, d.id DESC LIMIT $4)"
#define AFTER_DEAD		" AND d.died_at <= $6 AND (d.died_at, d.id) < ($6, $5)"

/* What the caller asks for. */
typedef struct Request
{
	RetryPageWanted wanted;
	Datum		state;
	Oid			state_type;
	const char *state_name;
	bool		goes_on;
	pg_uuid_t	after;
} Request;

/* The state by its order in retry.task_state. */
static RetryTaskState
state_of(Datum state)
{
	for (int i = RETRY_STATE_PENDING; i <= RETRY_STATE_CANCELLED; i++)
	{
		if (retry_task_state_oid(i) == DatumGetObjectId(state))
			return (RetryTaskState) i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("state: there are no pages of state %u", DatumGetObjectId(state))));
}

/* Ids of the scenes that are meant and seen, ascending; "only" 0: all that are seen. */
static int32 *
seen_scenes(bool own_only, int32 only, int *n)
{
	int			count;
	int32	   *ids = retry_visible_scenes(GetActiveSnapshot(), GetUserId(), NULL, own_only, &count);

	*n = 0;
	for (int i = 0; i < count; i++)
	{
		if (only == 0 || ids[i] == only)
			ids[(*n)++] = ids[i];
	}
	retry_scene_ids_sort(ids, *n);
	return ids;
}

/*
 * Which scenes' tasks the page may have.  One that the caller may not see is to
 * it as one that is not there.
 */
static void
choose_scenes(const char *given, RetryPageWanted *wanted)
{
	char		group[RETRY_NAME_MAX + 1];
	char		name[RETRY_NAME_MAX + 1];
	RetrySceneRow scene = {.id = 0};
	bool		known = true;

	if (given != NULL)
	{
		if (!retry_scene_parse(given, group, name))
			retry_not_a_scene(given);
		known = retry_scene_by_name(GetActiveSnapshot(), group, name, &scene);
	}
	wanted->scenes = seen_scenes(false, scene.id, &wanted->nscenes);
	wanted->own_scenes = seen_scenes(true, scene.id, &wanted->n_own_scenes);
	if (given != NULL && (!known || wanted->nscenes + wanted->n_own_scenes == 0))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("scene \"%s/%s\" does not exist", group, name),
				 errhint("Scenes are rows of retry.scene.")));
}

/* When the dead task died that the page before ended with; false: none is known. */
static bool
place_of_dead(const Request *request, TimestampTz *died_at)
{
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(&request->after)};
	bool		isnull;

	if (retry_statement_query("SELECT d.finished_at FROM retry.dead_letters d WHERE d.id = $1", 1, types, values, NULL) == 0)
		return false;
	*died_at = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	return true;
}

/* Finds out where the page before ended. */
static void
find_place(Request *request)
{
	RetryPageWanted *wanted = &request->wanted;

	wanted->after.id = request->after;
	wanted->goes_on = wanted->state == RETRY_STATE_DEAD ? place_of_dead(request, &wanted->after.due) :
		retry_page_place(wanted, &request->after, &wanted->after);
	if (!wanted->goes_on)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("after: no task %s is %s", retry_id_text(&request->after), request->state_name),
				 errhint("Give the id of the last task of the page before, or none for the first page.")));
}

static Datum
int4_array(const int32 *values, int n)
{
	Datum	   *items = palloc(sizeof(Datum) * (n + 1));

	for (int i = 0; i < n; i++)
		items[i] = Int32GetDatum(values[i]);
	return PointerGetDatum(construct_array(items, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/* Ids of a page of dead tasks. */
static Datum
find_dead(const RetryPageWanted *wanted)
{
	Oid			types[] = {INT4ARRAYOID, INT4ARRAYOID, OIDOID, INT4OID, UUIDOID, TIMESTAMPTZOID};
	Datum		values[] = {
		int4_array(wanted->scenes, wanted->nscenes), int4_array(wanted->own_scenes, wanted->n_own_scenes),
		ObjectIdGetDatum(wanted->role), Int32GetDatum(wanted->size),
		UUIDPGetDatum(&wanted->after.id), TimestampTzGetDatum(wanted->after.due)
	};
	RetryRoleSwitch caller;
	bool		isnull;

	retry_become_owner(&caller);
	retry_statement_query(psprintf(FIND_DEAD, wanted->goes_on ? AFTER_DEAD : ""), lengthof(types), types, values, NULL);
	retry_become_caller(&caller);
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
}

/* Ids of a page of tasks that are not. */
static Datum
find_others(const RetryPageWanted *wanted)
{
	RetryPos   *found = palloc(sizeof(RetryPos) * (wanted->size + 1));
	int			n = retry_page_find(wanted, found);
	Datum	   *ids = palloc(sizeof(Datum) * (n + 1));

	for (int i = 0; i < n; i++)
		ids[i] = UUIDPGetDatum(&found[i].id);
	return PointerGetDatum(construct_array(ids, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

static void
read_arguments(FunctionCallInfo fcinfo, Request *request)
{
	RetryPageWanted *wanted = &request->wanted;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("state: must not be null"),
				 errhint("Ask for one state at a time; retry.tasks has them all.")));
	if (PG_ARGISNULL(2) || PG_GETARG_INT32(2) < 1 || PG_GETARG_INT32(2) > MAX_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 PG_ARGISNULL(2) ? errmsg("size: must not be null") :
				 errmsg("size: %d is not between 1 and %d", PG_GETARG_INT32(2), MAX_SIZE),
				 errhint("Go on with after => the id of the last task of a page.")));
	request->state = PG_GETARG_DATUM(0);
	request->state_type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	request->state_name = DatumGetCString(OidFunctionCall1(F_ENUM_OUT, request->state));
	wanted->state = state_of(request->state);
	wanted->size = PG_GETARG_INT32(2);
	wanted->role = GetUserId();
	request->goes_on = !PG_ARGISNULL(1);
	if (request->goes_on)
		request->after = *PG_GETARG_UUID_P(1);
	choose_scenes(PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3)), wanted);
}

/* retry.page(state, after, size, scene): one page of the tasks in a state. */
Datum
retry_page(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Request		request = {.goes_on = false};
	Datum		ids;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	retry_statement_connect();
	read_arguments(fcinfo, &request);
	if (request.goes_on)
		find_place(&request);
	ids = request.wanted.state == RETRY_STATE_DEAD ? find_dead(&request.wanted) : find_others(&request.wanted);
	if (ArrayGetNItems(ARR_NDIM(DatumGetArrayTypeP(ids)), ARR_DIMS(DatumGetArrayTypeP(ids))) > 0)
	{
		Oid			types[] = {UUIDARRAYOID, request.state_type};
		Datum		values[] = {ids, request.state};
		uint64		n = retry_statement_query("SELECT t.* FROM retry.tasks t WHERE t.id = ANY ($1) AND t.state = $2"
											  " ORDER BY array_position($1, t.id)", 2, types, values, NULL);

		for (uint64 i = 0; i < n; i++)
			tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	}
	SPI_finish();
	return (Datum) 0;
}
