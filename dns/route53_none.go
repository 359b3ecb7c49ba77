//go:build !route53

package dns

// Route 53 brings the AWS SDK, a quarter of drover's size, which few need.
func openRoute53(Options) (Provider, error) {
	return nil, optionsf("this drover was built without the DNS provider route53: build it with -tags route53")
}
