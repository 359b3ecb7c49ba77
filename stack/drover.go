package stack

import (
	"regexp"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// DroverObject is the name of the object in expressions that has the names of the stack
// and the environment.
const DroverObject = "drover"

// DroverValues are the attributes of the object.
func (s *Stack) DroverValues() map[string]string {
	return map[string]string{"stack": s.Name, "environment": s.Environment}
}

func (s *Stack) droverObject() cty.Value {
	values := map[string]cty.Value{}
	for name, text := range s.DroverValues() {
		values[name] = cty.StringVal(text)
	}
	return cty.ObjectVal(values)
}

// usesDrover reports whether a text may name the object. It errs towards yes.
func usesDrover(src []byte) bool { return droverPattern.Match(src) }

var droverPattern = regexp.MustCompile(`\bdrover\s*[.\[]`)

// stackLabel is the name that stack.hcl gives the stack, "" when it gives none.
func stackLabel(f *hcl.File) string {
	body, ok := f.Body.(*hclsyntax.Body)
	if !ok {
		return ""
	}
	for _, b := range body.Blocks {
		if b.Type == "stack" && len(b.Labels) == 1 {
			return b.Labels[0]
		}
	}
	return ""
}
