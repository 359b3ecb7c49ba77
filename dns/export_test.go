package dns

// LibdnsContract is for the tests of providers on real servers.
var (
	LibdnsContract = libdnsContract
	ToLibdns       = toLibdns
)
