package stack

import (
	"bytes"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	hcljson "github.com/hashicorp/hcl/v2/json"
)

// Bounds of what HCL's parser is given. It is recursive, and Go ends the process if its
// stack overflows.
const (
	maxNested    = 500    // brackets and templates within one another
	maxOperators = 10_000 // operators of one expression
)

// ParseHCL is [hclsyntax.ParseConfig] with a bound: brackets that are nested too deep, and
// expressions with too many operators, are errors and do not end the process.
func ParseHCL(src []byte, name string) (*hcl.File, hcl.Diagnostics) {
	if diags := bounded(src, name); diags.HasErrors() {
		return nil, diags
	}
	return hclsyntax.ParseConfig(src, name, hcl.InitialPos)
}

// ParseHCLExpression is [hclsyntax.ParseExpression] with the bound of [ParseHCL].
func ParseHCLExpression(src []byte, name string) (hclsyntax.Expression, hcl.Diagnostics) {
	if diags := bounded(src, name); diags.HasErrors() {
		return nil, diags
	}
	return hclsyntax.ParseExpression(src, name, hcl.InitialPos)
}

// CheckHCL returns an error if HCL's parser must not be given src, in its native syntax or
// in JSON, because of the bound of [ParseHCL]. It reports no other mistakes.
func CheckHCL(src []byte, name string) hcl.Diagnostics {
	if trimmed := bytes.TrimLeft(src, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' {
		return boundedJSON(src, name)
	}
	return bounded(src, name)
}

// parseJSON is [hcljson.Parse] with the bound of [ParseHCL].
func parseJSON(src []byte, name string) (*hcl.File, hcl.Diagnostics) {
	if diags := boundedJSON(src, name); diags.HasErrors() {
		return nil, diags
	}
	return hcljson.Parse(src, name)
}

func boundedJSON(src []byte, name string) hcl.Diagnostics {
	depth, text := 0, false
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			if depth++; depth > maxNested {
				at := hcl.Pos{Line: 1 + bytes.Count(src[:i], []byte("\n")), Column: i - bytes.LastIndexByte(src[:i], '\n'), Byte: i}
				return tooDeep(hcl.Range{Filename: name, Start: at, End: at})
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

func tooDeep(at hcl.Range) hcl.Diagnostics {
	return hcl.Diagnostics{errAt(at, "Brackets are nested too deep", fmt.Sprintf("Write at most %d brackets within one another.", maxNested))}
}

// bounded reports what is too deep for the parser.
func bounded(src []byte, name string) hcl.Diagnostics {
	openings, operators := 0, 0
	for _, c := range src {
		switch c {
		case '(', '[', '{', '"':
			openings++
		case '!', '-', '+', '*', '/', '%', '?', '<', '>', '=', '&', '|':
			operators++
		}
	}
	if openings < maxNested && operators < maxOperators {
		return nil // the usual: the scanner is not needed
	}
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos) // the parser reports the mistakes
	// The operators since the last separator, for each bracket that is open.
	counts := []int{0}
	braces := []bool{true} // where a newline ends an expression
	for _, t := range tokens {
		last := len(counts) - 1
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			if counts, braces = append(counts, 0), append(braces, t.Type == hclsyntax.TokenOBrace); len(counts) > maxNested {
				return tooDeep(t.Range)
			}
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			if last > 0 {
				counts, braces = counts[:last], braces[:last]
			}
		case hclsyntax.TokenComma:
			counts[last] = 0
		case hclsyntax.TokenNewline:
			if braces[last] {
				counts[last] = 0
			}
		case hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenPlus, hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPercent, hclsyntax.TokenQuestion, hclsyntax.TokenAnd, hclsyntax.TokenOr,
			hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq, hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq:
			if counts[last]++; counts[last] > maxOperators {
				return hcl.Diagnostics{errAt(t.Range, "An expression has too many operators", fmt.Sprintf("Write at most %d operators in one expression.", maxOperators))}
			}
		}
	}
	return nil
}
