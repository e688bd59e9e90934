# Libraries that are preloaded into a server, so that a test can deceive it.
package RetryTest::Preload;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Basename;

our @EXPORT = qw(build_library);

# build_library(SOURCE, FILE): from test/SOURCE, for LD_PRELOAD.
sub build_library
{
	my ($source, $file) = @_;

	system($ENV{CC} // 'cc', '-shared', '-fPIC', '-O1', '-o', $file,
		dirname(__FILE__) . "/../../$source", '-ldl', '-lpthread') == 0
	  or die "cannot compile $source";
	return;
}

1;
