/*
 * cppcheck.h
 *		What cppcheck must know of PostgreSQL's headers, which it does not read:
 *		the macros that change the flow of control, or that look like no C.
 *
 * With the real headers a run takes many times as long and finds their faults
 * instead of ours.
 */
#define PG_FUNCTION_ARGS	FunctionCallInfo fcinfo
#define PG_RETURN_NULL()	return (Datum) 0
#define PG_RETURN_VOID()	return (Datum) 0
#define PG_RETURN_BOOL(x)	return (Datum) (x)
#define PG_RETURN_POINTER(x)	return (Datum) (x)
#define PG_RETURN_CSTRING(x)	return (Datum) (x)
#define PG_FUNCTION_INFO_V1(name)	extern Datum name(FunctionCallInfo fcinfo)
#define PG_MODULE_MAGIC		extern int pg_module_magic
#define PGDLLEXPORT
#define FLEXIBLE_ARRAY_MEMBER
#define pg_attribute_printf(f, a)
#define pg_noinline
#define pg_unreachable()	abort()
#define Assert(condition)	do { if (!(condition)) abort(); } while (0)
#define StaticAssertDecl(condition, message)	extern int static_assertion
#define lengthof(array)		(sizeof(array) / sizeof((array)[0]))
#define Min(x, y)			((x) < (y) ? (x) : (y))
#define Max(x, y)			((x) > (y) ? (x) : (y))
#define INT64CONST(x)		x##L
#define UINT64CONST(x)		x##UL
#define foreach(cell, list)	for ((cell) = list_head(list); (cell) != NULL; (cell) = lnext((list), (cell)))
#define ERROR				21
#define FATAL				22
#define ereport(level, ...)	do { report(__VA_ARGS__); if ((level) >= ERROR) abort(); } while (0)
#define elog(level, ...)	do { report(__VA_ARGS__); if ((level) >= ERROR) abort(); } while (0)
#define PG_TRY()			if (begin_try())
#define PG_CATCH()			else
#define PG_FINALLY()
#define PG_END_TRY()
