# The HTTP engine without a server of PostgreSQL around it (test/http/driver.c), and
# the servers that it talks to (test/http/peer.mjs).
package Http;
use strict;
use warnings;
use Exporter 'import';
use FindBin;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

our @EXPORT = qw(build_driver start_servers make_certificates drive raw);

my $driver;

# Compile it from the sources of the engine, with the checks of the compiler's sanitizers.
sub build_driver
{
	my ($dir) = @_;
	my ($major) = `postgres --version` =~ /(\d+)/;
	# headers are where the server was installed, not in a copy of it
	my $config = "/usr/lib/postgresql/$major/bin/pg_config";
	$config = 'pg_config' unless -x $config;
	chomp(my $include = `$config --includedir-server`);
	chomp(my $lib = `$config --pkglibdir`);
	my ($port) = grep { -e $_ } "$lib/libpgport.a", "$lib/../lib/libpgport.a" or die 'there is no libpgport';
	my $top = "$FindBin::Bin/../..";
	$driver = "$dir/driver";
	my $output = '';
	IPC::Run::run([ 'gcc', '-g', '-O1', '-fsanitize=address,undefined', '-fno-sanitize=alignment', '-fno-sanitize-recover=undefined', '-D_GNU_SOURCE', '-DUSE_ASSERT_CHECKING',
			"-I$top/src", "-I$include", "$top/test/http/driver.c", "$top/test/http/server.c",
			(map { "$top/src/http/http_$_.c" } qw(address answer engine socket transfer)), $port, '-lcurl', '-o', $driver ], '>', \$output, '2>&1')
		or die "the driver does not compile:\n$output";
	return $driver;
}

# (handle, port by name)
sub start_servers
{
	my ($dir, @certificates) = @_;
	my $handle = IPC::Run::start([ 'node', "$FindBin::Bin/../http/peer.mjs", "$dir/ports", $$, @certificates ], '<', \undef, '>', "$dir/peer.log", '2>&1');
	for (1 .. 1500) { last if -e "$dir/ports"; usleep(20_000) }
	-e "$dir/ports" or die 'the servers do not start: ' . PostgreSQL::Test::Utils::slurp_file("$dir/peer.log");
	return ($handle, decode_json(PostgreSQL::Test::Utils::slurp_file("$dir/ports")));
}

sub openssl
{
	my $output = '';
	IPC::Run::run([ 'openssl', @_ ], '<', \undef, '>', \$output, '2>&1') or die "openssl @_: $output";
}

# An authority, and certificates of it: see peer.mjs.
sub make_certificates
{
	my ($dir) = @_;
	openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=authority', '-days', 2, '-keyout', "$dir/ca.key", '-out', "$dir/ca.crt");
	openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', 2,
		'-keyout', "$dir/self.key", '-out', "$dir/self.crt");
	for ([ 'good', 'IP:127.0.0.1,DNS:localhost', 2 ], [ 'other', 'DNS:other.example', 2 ], [ 'expired', 'IP:127.0.0.1', -1 ], [ 'client', 'DNS:client', 2 ])
	{
		my ($name, $alternative, $days) = @$_;
		open my $f, '>', "$dir/$name.ext" or die $!;
		print $f "subjectAltName=$alternative\n";
		close $f;
		openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', "/CN=$name", '-keyout', "$dir/$name.key", '-out', "$dir/$name.csr");
		openssl('x509', '-req', '-in', "$dir/$name.csr", '-CA', "$dir/ca.crt", '-CAkey', "$dir/ca.key", '-CAcreateserial', '-days', $days,
			'-extfile', "$dir/$name.ext", '-out', "$dir/$name.crt");
	}
}

# Have the driver do these lines; its answers, and under "stat" what those lines said, as hashes.
# A "before" of words runs it in another environment.
sub drive
{
	my ($lines, @before) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ @before, $driver ], '<', \$lines, '>', \$out, '2>', \$err, IPC::Run::timeout(180)) or die "driver: $?\n$out$err";
	die "driver: $err" if $err =~ /AddressSanitizer|runtime error|assertion/;
	my @result;
	for my $line (split /\n/, $out)
	{
		my ($what, $error, $body) = split / \| ?/, $line, 3;
		my ($tag, @members) = split / /, $what;
		my %x = (tag => $tag, error => $error // '', body => $body // '', notes => $err);
		for (@members) { my ($name, $value) = split /=/, $_, 2; $x{$name} = $value // '' }
		push @result, \%x;
	}
	return @result;
}

# The path at which "plain" answers with these bytes.
sub raw { return '/raw/' . unpack('H*', $_[0]) . ($_[1] ? "/$_[1]" : '') }

1;
